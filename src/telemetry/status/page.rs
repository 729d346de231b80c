//! The status page: HTML that needs no script and nothing from elsewhere, readable in light and dark.

use std::fmt::{self, Display, Formatter};

use super::{Exporter, Status};

const STYLE: &str = include_str!("page.css");

/// See the module.
pub(super) struct Page<'a>(pub(super) &'a Status);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(status) = self;
        write!(
            f,
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
             <meta http-equiv=refresh content=10><title>Tailwater</title><style>{STYLE}</style><body>"
        )?;
        head(status, f)?;
        figures(status, f)?;
        policies(status, f)?;
        ledger(status, f)?;
        exporters(status, f)?;
        traces(status, f)?;
        refusals(status, f)?;
        notices(status, f)?;
        write!(
            f,
            "<footer>Counts are of this process life. <a href='?format=json'>The same as JSON</a> · \
             <a href=/metrics>metrics</a></footer></body></html>"
        )
    }
}

fn head(status: &Status, f: &mut Formatter<'_>) -> fmt::Result {
    let (class, state) = match &status.unready {
        None => ("good", "takes requests"),
        Some(reason) => ("bad", reason.as_str()),
    };
    write!(
        f,
        "<h1>Tailwater <small>{} · {}</small> <span class={class}>{}</span></h1><p>Up {}.",
        Text(status.version),
        Text(&status.instance),
        Text(state),
        Seconds(status.uptime_seconds)
    )?;
    for concern in &status.concerns {
        write!(f, "<p class=concern>{}", Text(concern))?;
    }
    Ok(())
}

fn figures(status: &Status, f: &mut Formatter<'_>) -> fmt::Result {
    let Status { rates, memory, disk, judged, .. } = status;
    let used = memory.log_and_index_bytes + memory.in_flight_bytes;
    let on_disk = disk.input_bytes + disk.outbox_bytes;
    f.write_str("<dl>")?;
    figure(f, "window", format_args!("{}", Seconds(status.window_seconds as u64)), "of traffic in memory")?;
    figure(f, "in", format_args!("{:.0}", rates.accepted_spans), "spans/s, last minute")?;
    figure(f, "kept", format_args!("{:.0}", rates.kept_spans), "spans/s, last minute")?;
    figure(f, "dropped", format_args!("{:.0}", rates.dropped_spans), "spans/s, last minute")?;
    figure(f, "refused", format_args!("{:.1}", rates.refused_requests), "requests/s, last minute")?;
    figure(f, "memory", format_args!("{}", Bytes(used)), format_args!("of {}", Bytes(memory.limit_bytes)))?;
    let logs = format_args!(
        "of {}: input {}, outbox {}",
        Bytes(disk.limit_bytes),
        Bytes(disk.input_bytes),
        Bytes(disk.outbox_bytes)
    );
    figure(f, "disk", format_args!("{}", Bytes(on_disk)), logs)?;
    let held = format_args!("in {} traces", Count(memory.traces));
    figure(f, "spans held", format_args!("{}", Count(memory.spans)), held)?;
    let waited =
        format_args!("{} without a root, {} early", Count(judged.without_root), Count(judged.by_pressure));
    figure(f, "age at judgement", format_args!("{} ms", Count(judged.mean_wait_ms)), waited)?;
    f.write_str("</dl>")
}

fn figure(f: &mut Formatter<'_>, name: &str, value: impl Display, more: impl Display) -> fmt::Result {
    write!(f, "<div><dt>{name}<dd>{value}<small>{more}</small></div>")
}

fn policies(status: &Status, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("<h2>Policies</h2><table><tr><th>policy<th>units kept<th>units dropped<th>kept<th>spans kept<th>share of all kept spans")?;
    let all: u64 = status.policies.iter().map(|policy| policy.counts.kept).sum();
    for policy in &status.policies {
        let counts = policy.counts;
        write!(
            f,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            Text(&policy.name),
            Count(counts.kept_units),
            Count(counts.dropped_units),
            Percent(counts.kept_units, counts.kept_units + counts.dropped_units),
            Count(counts.kept),
            Percent(counts.kept, all)
        )?;
    }
    write!(f, "</table><p>{} dropped traces were kept later.", Count(status.judged.upgraded))
}

fn ledger(status: &Status, f: &mut Formatter<'_>) -> fmt::Result {
    let terms = &status.ledger;
    f.write_str("<h2>Ledger</h2><table><tr>")?;
    let came = [("accepted", terms.accepted), ("recovered", terms.recovered), ("upgraded", terms.upgraded)];
    let went = [
        ("kept", terms.kept),
        ("dropped", terms.dropped),
        ("buffered", terms.buffered),
        ("duplicate", terms.duplicate),
        ("lost", terms.lost),
    ];
    for (name, _) in came.iter().chain([&("=", 0)]).chain(&went) {
        write!(f, "<th>{name}")?;
    }
    f.write_str("<tr>")?;
    came.iter().try_for_each(|(_, spans)| write!(f, "<td>{}", Count(*spans)))?;
    f.write_str("<td>=")?;
    went.iter().try_for_each(|(_, spans)| write!(f, "<td>{}", Count(*spans)))?;
    write!(f, "</table><p>In spans; the difference is {}.", status.difference)?;
    causes(f, "Spans rejected by partial success", &status.rejected)?;
    causes(f, "Bytes of the logs that could not be read back", &status.lost_bytes)
}

fn causes(f: &mut Formatter<'_>, what: &str, causes: &[super::Rejected]) -> fmt::Result {
    for cause in causes.iter().filter(|cause| cause.amount > 0) {
        write!(f, "<p>{what} ({}): {}.", Text(cause.cause), Count(cause.amount))?;
    }
    Ok(())
}

fn exporters(status: &Status, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("<h2>Exporters</h2><table><tr><th>exporter<th>state<th>delivered<th>pending<th>pending bytes<th>lost<th>last error")?;
    for exporter in &status.exporters {
        let Exporter { name, up, delivered, pending, pending_bytes, lost, last_error } = exporter;
        let state = if *up { "<span class=good>works</span>" } else { "<span class=bad>fails</span>" };
        let error = last_error.as_deref().unwrap_or("none");
        write!(
            f,
            "<tr><td>{}<td>{state}<td>{}<td>{}<td>{}<td>{}<td>{}",
            Text(name),
            Count(*delivered),
            Count(*pending),
            Bytes(*pending_bytes),
            Count(*lost),
            Text(error)
        )?;
    }
    f.write_str("</table>")
}

fn traces(status: &Status, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("<h2>Largest traces in memory</h2><table><tr><th>trace<th>tenant<th>state<th>bytes")?;
    for trace in &status.largest_traces {
        write!(
            f,
            "<tr><td><code>{}</code><td>{}<td>{}<td>{}",
            Text(&trace.trace_id),
            Text(&trace.tenant),
            trace.state,
            Bytes(trace.bytes)
        )?;
    }
    f.write_str("</table>")
}

fn refusals(status: &Status, f: &mut Formatter<'_>) -> fmt::Result {
    let mut refused = status.refused.iter().filter(|refused| refused.requests > 0).peekable();
    f.write_str("<h2>Refused requests</h2>")?;
    if refused.peek().is_none() {
        return f.write_str("<p>None.");
    }
    f.write_str("<table><tr><th>cause<th>requests<th>bytes")?;
    for refused in refused {
        write!(
            f,
            "<tr><td>{}<td>{}<td>{}",
            Text(refused.cause),
            Count(refused.requests),
            Bytes(refused.bytes)
        )?;
    }
    f.write_str("</table>")
}

fn notices(status: &Status, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("<h2>Last warnings and errors</h2>")?;
    if status.notices.is_empty() {
        return f.write_str("<p>None.");
    }
    f.write_str("<table><tr><th>ago<th>level<th>what")?;
    for notice in &status.notices {
        let ago = status.now_ms.saturating_sub(notice.at_ms) / 1_000;
        write!(f, "<tr><td>{}<td>{}<td>{}", Seconds(ago), notice.level, Text(&notice.text))?;
    }
    f.write_str("</table>")
}

/// Text from outside: names, errors.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => write!(f, "{other}"),
        })
    }
}

/// With its thousands apart.
struct Count(u64);

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.into_iter().find(|(_, shift)| self.0 >> shift > 0) {
            Some((unit, shift)) => write!(f, "{:.1} {unit}", self.0 as f64 / (1_u64 << shift) as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7_200 => write!(f, "{} min", seconds / 60),
            seconds @ 7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

struct Percent(u64, u64);

impl Display for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.1 {
            0 => f.write_str("–"),
            all => write!(f, "{:.1} %", self.0 as f64 / all as f64 * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::*;

    #[test]
    fn what_comes_from_outside_is_text_and_never_markup() {
        let policy = Policy { name: "<script>alert('x')</script>".to_owned(), counts: Default::default() };
        let page = Status { policies: vec![policy], ..Status::default() }.page();
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{page}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = Status::default().page();
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="), "{page}");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(Count(1_234_567).to_string(), "1,234,567");
        assert_eq!(Count(123).to_string(), "123");
        assert_eq!(Bytes(5 << 29).to_string(), "2.5 GiB");
        assert_eq!(Seconds(7_199).to_string(), "119 min");
        assert_eq!(Percent(1, 8).to_string(), "12.5 %");
        assert_eq!(Percent(0, 0).to_string(), "–");
    }
}
