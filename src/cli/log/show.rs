//! A survey as text.

use std::io::{self, Write};
use std::path::Path;

use chrono::DateTime;

use crate::cli::Failure;
use crate::pipeline::survey::{SegmentFound, StateFound, Survey};
use crate::trace::Position;

pub(super) fn list(survey: &Survey, data_dir: &Path) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", data_dir.display())?;
    state(&mut out, &survey.state)?;
    for (name, segments) in [("input log", &survey.input), ("outbox", &survey.outbox)] {
        log(&mut out, name, segments)?;
    }
    exporters(&mut out, survey)?;
    for complaint in survey.complaints() {
        writeln!(out, "wrong: {complaint}")?;
    }
    Ok(())
}

/// Says what is wrong, and fails if anything is.
pub(super) fn verify(survey: &Survey) -> Result<(), Failure> {
    let complaints = survey.complaints();
    let mut out = io::stdout().lock();
    for complaint in &complaints {
        writeln!(out, "{complaint}")?;
    }
    let segments = || survey.input.iter().chain(&survey.outbox);
    let (records, unfinished): (u64, u64) =
        (segments().map(|found| found.records).sum(), segments().map(|found| found.unfinished_bytes).sum());
    writeln!(out, "{} segments with {records} records can be read", segments().count())?;
    if unfinished > 0 {
        writeln!(
            out,
            "{unfinished} bytes at the end are unfinished: being written, or cut off and never confirmed"
        )?;
    }
    match complaints.len() {
        0 => Ok(()),
        faults => Err(anyhow::anyhow!("{faults} faults found").into()),
    }
}

fn state(out: &mut dyn Write, state: &StateFound) -> io::Result<()> {
    match state {
        StateFound::Nothing => writeln!(out, "\nstate      none"),
        StateFound::Damaged { bytes } => writeln!(out, "\nstate      damaged, {bytes} bytes"),
        StateFound::Whole(state) => {
            writeln!(out, "\nstate      written {}", time(state.written_ms))?;
            writeln!(out, "           {} kept traces, {} operations learned", state.kept, state.operations)?;
            writeln!(out, "           input needed from {}", position(state.low_water))?;
            writeln!(out, "           outbox known to {}", position(state.outbox_covered))
        }
    }
}

fn log(out: &mut dyn Write, name: &str, segments: &[SegmentFound]) -> io::Result<()> {
    let bytes: u64 = segments.iter().map(|found| found.bytes).sum();
    writeln!(out, "\n{name:<10} {} segments, {}", segments.len(), size(bytes))?;
    if segments.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "  {:>10}  {:<36}  {:<20}  {:>10}  {:>9}  {:>9}  damage",
        "number", "uuid", "opened", "size", "records", "spans"
    )?;
    for found in segments {
        let (uuid, opened) = match &found.header {
            Ok(header) => (header.uuid.to_string(), time(header.opened_ms)),
            Err(_) => ("?".to_owned(), "?".to_owned()),
        };
        writeln!(
            out,
            "  {:>10}  {uuid:<36}  {opened:<20}  {:>10}  {:>9}  {:>9}  {}",
            found.number,
            size(found.bytes),
            found.records,
            found.spans,
            damage(found)
        )?;
    }
    Ok(())
}

fn damage(found: &SegmentFound) -> String {
    let mut words = Vec::new();
    if let Err(fault) = &found.header {
        words.push(fault.to_string());
    }
    if found.damaged_bytes > 0 {
        words.push(format!("{} bytes cannot be read", found.damaged_bytes));
    }
    if found.unfinished_bytes > 0 {
        words.push(format!("{} bytes unfinished", found.unfinished_bytes));
    }
    if words.is_empty() { "-".to_owned() } else { words.join("; ") }
}

fn exporters(out: &mut dyn Write, survey: &Survey) -> io::Result<()> {
    writeln!(out, "\nexporters  {}", survey.exporters.len())?;
    for exporter in &survey.exporters {
        let at = exporter.cursor.map_or_else(|| "damaged".to_owned(), position);
        let waits = exporter.waits;
        let (name, spans, records, bytes) = (&exporter.name, waits.spans, waits.records, size(waits.bytes));
        writeln!(out, "  {name:<20}  at {at:<16}  {spans} spans wait in {records} records, {bytes}")?;
    }
    Ok(())
}

fn position(at: Position) -> String {
    format!("{}:{}", at.segment, at.offset)
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| "?".to_owned(), |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!(
            (size(1023), size(1536), size(5 << 30)),
            ("1023 B".into(), "1.5 KiB".into(), "5.0 GiB".into())
        );
        assert_eq!(time(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(u64::MAX), "?");
    }
}
