//! Takes the `collector` part of a scenario through the converter.

use serde_json::Value;
use tailwater::convert::{Converted, Format, convert};

use crate::format::{ConvertOutcome, Scenario};
use crate::settings::Text;

/// The policies that it becomes; none where it must be refused, or where there is none. Err: what is wrong with that.
pub fn policies(scenario: &Scenario) -> Result<Option<Value>, String> {
    let Some(collector) = &scenario.collector else { return Ok(None) };
    let text = Text::of(collector);
    let converted = convert(Format::Collector, &text.text, "collector.yaml", None);
    let expected = scenario.convert.as_ref();
    let at = |line: usize| expected.is_some_and(|expected| text.holds(&expected.at, line));
    match (expected.map(|expected| expected.outcome), converted) {
        (Some(ConvertOutcome::Refused), Err(error))
            if error.mistakes.iter().any(|mistake| at(mistake.line)) =>
        {
            Ok(None)
        }
        (Some(ConvertOutcome::Refused), Err(error)) => Err(format!("converted: refused elsewhere: {error}")),
        (Some(ConvertOutcome::Refused), Ok(_)) => Err("converted: it is not refused".to_owned()),
        (_, Err(error)) => Err(format!("converted: {error}")),
        (Some(ConvertOutcome::Warned), Ok(converted))
            if !converted.notes.iter().any(|note| at(note.line)) =>
        {
            Err(format!("converted: no warning at the place: {:?}", converted.notes))
        }
        (_, Ok(converted)) => read(&converted).map(Some),
    }
}

fn read(converted: &Converted) -> Result<Value, String> {
    let file: Value =
        serde_saphyr::from_str(&converted.text).map_err(|error| format!("converted: {error}"))?;
    Ok(file["policies"].clone())
}

/// The scenario's configuration with these policies.
pub fn replaced(scenario: &Scenario, policies: &Value) -> Value {
    let mut tailwater = scenario.tailwater.clone().unwrap_or_default();
    tailwater["policies"] = policies.clone();
    tailwater
}
