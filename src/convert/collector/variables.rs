//! Variables in values.

/// The Collector's variables as ours: `${env:NAME}` and `${NAME}`, `$$` for a dollar sign.
pub(super) fn variables(value: &str) -> String {
    let mut ours = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        ours.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest.strip_prefix("${").and_then(|inside| inside.split_once('}'));
        let name = |inside: &str| inside.strip_prefix("env:").unwrap_or(inside).to_owned();
        match reference {
            Some((inside, tail)) if is_variable(&name(inside)) => {
                ours.push_str(&format!("${{{}}}", name(inside)));
                rest = tail;
            }
            _ if rest.starts_with("$$") => {
                ours.push_str(if rest.starts_with("$${") { "$$" } else { "$" });
                rest = &rest[2..];
            }
            _ => {
                ours.push_str(if rest.starts_with("${") { "$$" } else { "$" });
                rest = &rest[1..];
            }
        }
    }
    ours.push_str(rest);
    ours
}

/// Whether a value is what the environment says, in whole or in part.
pub(super) fn has_variable(value: &str) -> bool {
    value.contains("${")
}

/// What a value is taken for where the environment says nothing: its defaults.
pub(super) fn by_default(value: &str) -> Option<String> {
    let (before, rest) = value.split_once("${")?;
    let (inside, after) = rest.split_once('}')?;
    let (_, default) = inside.split_once(":-")?;
    let filled = format!("{before}{default}{after}");
    if has_variable(&filled) { by_default(&filled) } else { Some(filled) }
}

fn is_variable(inside: &str) -> bool {
    let name = inside.split(":-").next().unwrap_or_default();
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_the_collector_become_ours() {
        let table = [
            ("plain", "plain"),
            ("${env:TIER}", "${TIER}"),
            ("a ${TIER:-gold} b", "a ${TIER:-gold} b"),
            ("price$", "price$"),
            ("^a$$", "^a$"),
            ("$${literal}", "$${literal}"),
            ("x{2}${", "x{2}$${"),
        ];
        for (theirs, ours) in table {
            assert_eq!(variables(theirs), ours, "{theirs}");
        }
    }

    #[test]
    fn a_value_with_defaults_is_taken_for_them() {
        let table = [
            ("${env:A:-10}s", Some("10s")),
            ("${A:-1}${env:B:-2}", Some("12")),
            ("${env:A}", None),
            ("5", None),
            ("${A:-1", None),
        ];
        for (value, taken) in table {
            assert_eq!(by_default(value).as_deref(), taken, "{value}");
        }
    }
}
