use super::*;
use crate::telemetry::{Families, Source};

const SECOND: u64 = 1_000_000_000;

fn red(max_series: u32) -> Red {
    Red::new(&Config { enabled: true, max_series })
}

fn call(name: &str, duration: u64) -> Call<'_> {
    Call { name: name.as_bytes(), kind: 2, failed: false, start: SECOND, end: SECOND + duration }
}

fn text(red: &Red) -> String {
    let mut families = Families::default();
    red.collect(&mut families);
    families.encode_openmetrics()
}

fn has(red: &Red, lines: &[&str]) {
    let text = text(red);
    for line in lines {
        assert!(text.lines().any(|shown| shown == *line), "{line} in {text}");
    }
}

#[test]
fn calls_errors_and_durations_are_counted_by_service_name_and_kind() {
    let red = red(10);
    let origin = red.origin("", "cart");
    let mut counting = red.counting();
    counting.call(origin, call("GET", SECOND));
    counting.call(origin, Call { failed: true, ..call("GET", SECOND / 2 + 1) });
    counting.call(origin, Call { start: 0, ..call("GET", 0) });
    counting.call(origin, Call { kind: 3, ..call("GET", 0) });
    drop(counting);
    let labels = r#"tenant="",service="cart",span="GET",kind="server""#;
    has(
        &red,
        &[
            &format!("tailwater_red_calls_total{{{labels}}} 3.0"),
            &format!("tailwater_red_errors_total{{{labels}}} 1.0"),
            &format!("tailwater_red_duration_seconds_count{{{labels}}} 2.0"),
            &format!("tailwater_red_duration_seconds_sum{{{labels}}} 1.500000001"),
            &format!("tailwater_red_duration_seconds_bucket{{{labels},le=\"0.5\"}} 0.0"),
            &format!("tailwater_red_duration_seconds_bucket{{{labels},le=\"1.0\"}} 2.0"),
            r#"tailwater_red_calls_total{tenant="",service="cart",span="GET",kind="client"} 1.0"#,
            "tailwater_red_series 2.0",
        ],
    );
}

#[test]
fn what_has_no_room_is_counted_as_other() {
    let red = red(2);
    let origin = red.origin("", "cart");
    let names: Vec<String> = (0..100).map(|n| format!("GET /{n}")).collect();
    for _ in 0..3 {
        let mut counting = red.counting();
        names.iter().for_each(|name| counting.call(origin, call(name, 1)));
    }
    has(
        &red,
        &[
            r#"tailwater_red_calls_total{tenant="",service="cart",span="GET /0",kind="server"} 3.0"#,
            r#"tailwater_red_calls_total{tenant="",service="cart",span="GET /1",kind="server"} 3.0"#,
            r#"tailwater_red_calls_total{tenant="",service="(other)",span="(other)",kind="server"} 294.0"#,
        ],
    );
}

#[test]
fn names_that_look_alike_share_a_series() {
    let red = red(10);
    let long = "x".repeat(1_000);
    let origin = red.origin("", "cart");
    let mut counting = red.counting();
    for name in [format!("{long}a").as_bytes(), format!("{long}b").as_bytes(), b"\xff", b"\xfe"] {
        counting.call(origin, Call { name, ..call("", 1) });
    }
    drop(counting);
    assert!(text(&red).contains("tailwater_red_series 2.0"));
}

#[test]
fn threads_count_together() {
    let red = red(10);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let origin = red.origin("t", "cart");
                    red.counting().call(origin, call("GET", 1));
                }
            });
        }
    });
    has(&red, &[r#"tailwater_red_calls_total{tenant="t",service="cart",span="GET",kind="server"} 1200.0"#]);
}

#[test]
fn a_kept_trace_is_the_example_of_its_bucket_and_of_its_errors() {
    let red = red(10);
    let origin = red.origin("", "cart");
    let failed = Call { failed: true, ..call("GET", SECOND) };
    red.counting().call(origin, failed);
    red.kept(origin, call("never counted", 1), TraceId([9; 16]), 1_000);
    red.kept(origin, failed, TraceId([7; 16]), 2_500);
    let example = format!(" # {{trace_id=\"{}\"}} 1.0 2.500", TraceId([7; 16]));
    let labels = r#"tenant="",service="cart",span="GET",kind="server""#;
    has(
        &red,
        &[
            &format!("tailwater_red_errors_total{{{labels}}} 1.0{example}"),
            &format!("tailwater_red_duration_seconds_bucket{{{labels},le=\"1.0\"}} 1.0{example}"),
        ],
    );
    assert_eq!(text(&red).matches("trace_id").count(), 2);
}

#[test]
fn what_is_idle_gives_its_place_to_what_wants_it() {
    const MINUTE: u64 = 60_000;
    let red = red(2);
    let origin = red.origin("", "cart");
    let count = |name: &str| red.counting().call(origin, call(name, SECOND));
    let shown = |name: &str| {
        let line =
            format!(r#"tailwater_red_calls_total{{tenant="",service="cart",span="{name}",kind="server"}} "#);
        text(&red).lines().find_map(|shown| shown.strip_prefix(&line).map(str::to_owned))
    };
    let begin = 1_700_000_000_000;
    red.tidy(begin);
    count("renamed");
    red.kept(origin, call("renamed", SECOND), TraceId([7; 16]), begin);
    for minute in 1..=62 {
        count("alive");
        red.tidy(begin + minute * MINUTE);
    }
    assert_eq!(shown("renamed").as_deref(), Some("1.0"), "nobody wants its room");
    count("new name");
    assert_eq!(shown("new name"), None);
    red.tidy(begin + 63 * MINUTE);
    assert_eq!((shown("renamed"), shown("alive").as_deref()), (None, Some("62.0")));
    count("new name");
    count("alive");
    assert_eq!((shown("new name").as_deref(), shown("alive").as_deref()), (Some("1.0"), Some("63.0")));
    assert!(!text(&red).contains("trace_id"), "an example is not that of another series");
    has(
        &red,
        &[
            r#"tailwater_red_calls_total{tenant="",service="(other)",span="(other)",kind="server"} 1.0"#,
            "tailwater_red_series 2.0",
        ],
    );
    count("beyond");
    red.tidy(begin + 64 * MINUTE);
    assert_eq!((shown("beyond"), shown("new name").as_deref()), (None, Some("1.0")), "nothing is idle");
}
