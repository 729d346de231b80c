use std::collections::HashMap;

use super::*;

fn collector(text: &str) -> Converted {
    convert(Format::Collector, text, "collector.yaml", None).unwrap_or_else(|error| panic!("{error}"))
}

fn refinery(text: &str) -> Converted {
    convert(Format::Refinery, text, "rules.yaml", None).unwrap_or_else(|error| panic!("{error}"))
}

/// The lines of the policies, without comments.
fn policies(converted: &Converted) -> Vec<&str> {
    let lines = converted.text.lines().skip_while(|line| *line != "policies:").skip(1);
    lines
        .take_while(|line| line.starts_with(' '))
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .collect()
}

#[test]
fn debug_print() {
    let converted = collector(include_str!("../../tests/convert/collector.yaml"));
    println!("{}", converted.text);
    let converted = refinery(include_str!("../../tests/convert/refinery.yaml"));
    println!("{}", converted.text);
    let _ = (policies(&converted), HashMap::<String, String>::new());
}
