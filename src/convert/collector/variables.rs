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
}
