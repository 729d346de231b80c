//! W3C trace state: reads `th` and `rv` of its `ot` member, and writes it anew with another `th`.
//!
//! A changed `ot` member moves to the front, as [W3C trace context] asks; other members and other sub-keys of `ot` stay
//! as they came and in order. Whatever is not valid counts as absent, and is left alone unless `th` is written.
//!
//! [W3C trace context]: https://www.w3.org/TR/trace-context-2/#mutating-the-tracestate-field

use crate::trace::{Randomness, Threshold, WeightRule};

/// Members that a trace state may have; what exceeds them is cut at the end.
const MEMBERS_MAX: usize = 32;

/// What OpenTelemetry says in a trace state; only what is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtState {
    pub th: Option<Threshold>,
    pub rv: Option<Randomness>,
}

/// Reads the `ot` member of a trace state. Most spans have none.
#[inline]
pub fn ot(trace_state: &[u8]) -> OtState {
    if trace_state.is_empty() { OtState::default() } else { OtState::of(ot_member(trace_state)) }
}

impl OtState {
    fn of(ot: &[u8]) -> Self {
        let (mut th, mut rv) = (None, None);
        for sub_key in sub_keys(ot) {
            th = th.or_else(|| value_of(sub_key, b"th"));
            rv = rv.or_else(|| value_of(sub_key, b"rv"));
        }
        Self { th: th.and_then(Threshold::decode), rv: rv.and_then(Randomness::decode) }
    }
}

/// The value of a member of the trace state, such as a vendor's own mark.
pub fn member<'a>(trace_state: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    members(trace_state).find_map(|member| member.strip_prefix(key)?.strip_prefix(b"="))
}

/// What happens to `th` on the way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThEdit {
    /// The trace state leaves as it came, byte by byte.
    #[default]
    Keep,
    Set(Threshold),
    Erase,
}

/// How a kept span leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outgoing {
    pub edit: ThEdit,
    /// Adjusted count: how many spans it stands for.
    pub weight: f64,
    /// It came with a `th` above the randomness of its trace: whoever sampled it contradicts itself.
    pub inconsistent: bool,
}

/// The edit that a kept span needs and the weight that it then has: th_out = max(th_in, T), without an inconsistent th_in.
pub fn outgoing(
    trace_state: &[u8],
    rule: WeightRule,
    threshold: Threshold,
    randomness: Randomness,
) -> Outgoing {
    match rule {
        WeightRule::Threshold => raised(ot(trace_state).th, threshold, randomness),
        WeightRule::Zero => {
            let edit = if has_th(trace_state) { ThEdit::Erase } else { ThEdit::Keep };
            Outgoing { edit, weight: 0.0, inconsistent: false }
        }
        WeightRule::Hashed => {
            let weight = hashed(ot(trace_state).th, threshold);
            Outgoing { edit: ThEdit::Keep, weight, inconsistent: false }
        }
    }
}

/// A hash knows nothing of the randomness that an earlier sampler used: each has sampled what the other left.
fn hashed(incoming: Option<Threshold>, threshold: Threshold) -> f64 {
    incoming.map_or(1.0, Threshold::weight) * threshold.weight()
}

fn raised(incoming: Option<Threshold>, threshold: Threshold, randomness: Randomness) -> Outgoing {
    let consistent = incoming.filter(|th| th.keeps(randomness));
    let inconsistent = consistent != incoming;
    // a threshold that keeps all leaves a th as it stands, and writes none where none came
    let own = (threshold != Threshold::ALWAYS).then_some(threshold);
    let out = consistent.max(own);
    let edit = match out {
        _ if out == incoming => ThEdit::Keep,
        Some(th) => ThEdit::Set(th),
        None => ThEdit::Erase,
    };
    Outgoing { edit, weight: out.map_or(1.0, Threshold::weight), inconsistent }
}

/// Adjusted count of a span that has left: with the trace state it was sent with, under the rule and threshold of its
/// piece.
pub fn weight(trace_state: &[u8], rule: WeightRule, threshold: Threshold) -> f64 {
    match rule {
        WeightRule::Threshold => ot(trace_state).th.map_or(1.0, Threshold::weight),
        WeightRule::Zero => 0.0,
        WeightRule::Hashed => hashed(ot(trace_state).th, threshold),
    }
}

/// Appends the trace state with `th` edited.
pub fn splice(trace_state: &[u8], edit: ThEdit, out: &mut Vec<u8>) {
    let th = match edit {
        ThEdit::Keep => return out.extend_from_slice(trace_state),
        ThEdit::Set(threshold) => threshold.encode(),
        ThEdit::Erase if !has_th(trace_state) => return out.extend_from_slice(trace_state),
        ThEdit::Erase => None,
    };
    let mut ot_out = Separated::new(out, b"ot=", b';');
    if let Some(th) = th {
        ot_out.push(&[b"th:", th.as_bytes()]);
    }
    for sub_key in sub_keys(ot_member(trace_state)).filter(|sub_key| value_of(sub_key, b"th").is_none()) {
        ot_out.push(&[sub_key]);
    }
    let has_ot = usize::from(ot_out.begun);
    let mut members_out = Separated { out, prefix: b"", separator: b',', begun: has_ot == 1 };
    let others = members(trace_state).filter(|member| !member.starts_with(b"ot="));
    for member in others.take(MEMBERS_MAX - has_ot) {
        members_out.push(&[member]);
    }
}

/// Items with a separator between them, and a prefix before the first.
struct Separated<'a> {
    out: &'a mut Vec<u8>,
    prefix: &'static [u8],
    separator: u8,
    begun: bool,
}

impl<'a> Separated<'a> {
    fn new(out: &'a mut Vec<u8>, prefix: &'static [u8], separator: u8) -> Self {
        Self { out, prefix, separator, begun: false }
    }

    fn push(&mut self, item: &[&[u8]]) {
        if self.begun {
            self.out.push(self.separator);
        } else {
            self.out.extend_from_slice(self.prefix);
        }
        self.begun = true;
        item.iter().for_each(|part| self.out.extend_from_slice(part));
    }
}

/// The members, without white space around them; empty ones are allowed and skipped.
fn members(trace_state: &[u8]) -> impl Iterator<Item = &[u8]> {
    trace_state.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The value of the `ot` member, empty if there is none.
fn ot_member(trace_state: &[u8]) -> &[u8] {
    member(trace_state, b"ot").unwrap_or_default()
}

fn sub_keys(ot: &[u8]) -> impl Iterator<Item = &[u8]> {
    ot.split(|&byte| byte == b';').filter(|sub_key| !sub_key.is_empty())
}

fn value_of<'a>(sub_key: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    sub_key.strip_prefix(key)?.strip_prefix(b":")
}

/// Whether there is a `th`, valid or not.
fn has_th(trace_state: &[u8]) -> bool {
    !trace_state.is_empty()
        && sub_keys(ot_member(trace_state)).any(|sub_key| value_of(sub_key, b"th").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceId;

    /// Rows of the vectors of one kind, by column; a column with a comma in it is in quotes.
    fn vectors(kind: &str) -> impl Iterator<Item = Vec<String>> {
        let lines = include_str!("../../tests/conformance/threshold_vectors.csv").lines();
        let rows = lines.map(|line| {
            let mut quoted = false;
            let columns = line.split(|letter| {
                quoted ^= letter == '"';
                letter == ',' && !quoted
            });
            columns.map(|column| column.trim_matches('"').to_owned()).collect::<Vec<_>>()
        });
        rows.filter(move |row| row[0] == kind)
    }

    fn threshold(share: &str) -> Threshold {
        Threshold::of(share.parse().unwrap())
    }

    fn spliced(trace_state: &str, edit: ThEdit) -> String {
        let mut out = Vec::new();
        splice(trace_state.as_bytes(), edit, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn explicit_randomness_is_read_as_the_vectors_say() {
        let mut rows = 0;
        for row in vectors("rv") {
            let expected = u64::from_str_radix(&row[3], 16).ok().map(Randomness);
            assert_eq!(expected.is_some(), row[8] == "valid");
            assert_eq!(ot(row[2].as_bytes()).rv, expected, "{}", row[2]);
            rows += 1;
        }
        assert_eq!(rows, 9);
    }

    #[test]
    fn thresholds_are_raised_as_the_vectors_say() {
        let mut rows = 0;
        for row in vectors("raise") {
            let randomness = u64::from_str_radix(&row[3], 16).map_or(Randomness(u64::MAX >> 8), Randomness);
            let leaving = outgoing(row[2].as_bytes(), WeightRule::Threshold, threshold(&row[4]), randomness);
            let sent = spliced(&row[2], leaving.edit);
            let th = ot(sent.as_bytes()).th.map(|th| th.encode().unwrap().to_string());
            assert_eq!(th.unwrap_or_default(), row[6], "{row:?}");
            let expected: f64 = row[7].parse().unwrap();
            assert!((leaving.weight / expected - 1.0).abs() < 1e-14, "{row:?}");
            assert_eq!(leaving.weight, weight(sent.as_bytes(), WeightRule::Threshold, threshold(&row[4])));
            assert_eq!(leaving.inconsistent, row[9].starts_with("inconsistent"), "{row:?}");
            rows += 1;
        }
        assert_eq!(rows, 36);
    }

    #[test]
    fn shares_decide_as_the_vectors_say() {
        let mut rows = 0;
        for row in vectors("verdict") {
            let id = TraceId(u128::from_str_radix(&row[1], 16).unwrap().to_be_bytes());
            let randomness = ot(row[2].as_bytes()).rv.unwrap_or(Randomness::of_trace(id));
            assert_eq!(format!("{:014x}", randomness.0), row[3]);
            assert_eq!(threshold(&row[4]).keeps(randomness), row[8] == "kept", "{row:?}");
            rows += 1;
        }
        assert_eq!(rows, 112);
    }

    #[test]
    fn a_changed_member_moves_to_the_front_and_the_others_stay() {
        let set = ThEdit::Set(threshold("50%"));
        assert_eq!(spliced("", set), "ot=th:8");
        assert_eq!(spliced("rojo=1,congo=2", set), "ot=th:8,rojo=1,congo=2");
        assert_eq!(spliced("rojo=1, ot=p:8;th:4;rv:1 ,congo=2", set), "ot=th:8;p:8;rv:1,rojo=1,congo=2");
        assert_eq!(spliced("rojo=1,,ot=th:g", set), "ot=th:8,rojo=1");
    }

    #[test]
    fn an_erased_threshold_takes_its_member_along_if_nothing_else_is_in_it() {
        assert_eq!(spliced("rojo=1,ot=th:4,congo=2", ThEdit::Erase), "rojo=1,congo=2");
        assert_eq!(spliced("rojo=1,ot=th:4;rv:1", ThEdit::Erase), "ot=rv:1,rojo=1");
        assert_eq!(spliced("rojo=1, ot=rv:1", ThEdit::Erase), "rojo=1, ot=rv:1", "nothing to erase");
        assert_eq!(spliced("ot=th:4", ThEdit::Erase), "");
    }

    #[test]
    fn a_full_trace_state_loses_its_last_member() {
        let full = (0..32).map(|number| format!("m{number}=1")).collect::<Vec<_>>().join(",");
        let sent = spliced(&full, ThEdit::Set(threshold("50%")));
        assert!(sent.starts_with("ot=th:8,m0=1,") && sent.ends_with(",m30=1"), "{sent}");
    }

    #[test]
    fn a_span_kept_for_another_reason_than_its_first_verdict_weighs_nothing_and_has_no_th() {
        let randomness = Randomness(1 << 55);
        let leaving = outgoing(b"ot=th:8", WeightRule::Zero, threshold("50%"), randomness);
        assert_eq!(leaving, Outgoing { edit: ThEdit::Erase, weight: 0.0, inconsistent: false });
        let leaving = outgoing(b"", WeightRule::Zero, threshold("50%"), randomness);
        assert_eq!(leaving.edit, ThEdit::Keep);
    }

    #[test]
    fn hashed_randomness_writes_no_th_and_multiplies_with_what_was_sampled_before() {
        let leaving = outgoing(b"ot=th:8", WeightRule::Hashed, threshold("25%"), Randomness(0));
        assert_eq!(leaving, Outgoing { edit: ThEdit::Keep, weight: 8.0, inconsistent: false });
        assert_eq!(weight(b"ot=th:8", WeightRule::Hashed, threshold("25%")), 8.0);
        assert_eq!(weight(b"", WeightRule::Hashed, threshold("25%")), 4.0);
    }

    #[test]
    fn members_are_found_by_key() {
        assert_eq!(member(b"a=1, vendor=x=y ,b=2", b"vendor"), Some(&b"x=y"[..]));
        assert_eq!(member(b"a=1", b"vendor"), None);
    }
}
