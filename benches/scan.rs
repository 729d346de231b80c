//! What scanning and copying out cost a span.
//!
//! Time on a shared machine says little; instructions are exact. The difference of two run lengths leaves start-up out:
//!
//! ```text
//! cargo bench --bench scan --no-run
//! for n in 10 30; do valgrind --tool=callgrind target/release/deps/scan-* $n scan; done
//! ```
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench reads the clock and says what it read"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use tailwater::otlp::{Outline, PieceSpan, ThEdit, piece, scan};
use tailwater::trace::{Share, Threshold, TraceId};

mod workload;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rounds = arguments.first().map_or(50, |rounds| rounds.parse().expect("a number of rounds"));
    let wanted = |name: &str| arguments.get(1).is_none_or(|only| only == name);
    let mut generator = workload::Generator::new(7);
    let bodies: Vec<_> = (0..4).map(|_| generator.request(512)).collect();
    if wanted("scan") {
        measure("scan", rounds, || bodies.iter().map(|body| scan_all(body)).sum());
    }
    let outlines: Vec<_> = bodies.iter().map(|body| Outline::note(body)).collect();
    let pieces = pieces(&bodies, &outlines);
    for (name, edit) in
        [("piece", ThEdit::Keep), ("piece_th", ThEdit::Set(Threshold::of(Share::nearest(0.05))))]
    {
        if wanted(name) {
            let mut out = Vec::new();
            measure(name, rounds, || pieces.iter().map(|spans| encode(spans, edit, &mut out)).sum());
        }
    }
}

fn measure(name: &str, rounds: usize, mut work: impl FnMut() -> usize) {
    let start = Instant::now();
    let spans: usize = (0..rounds).map(|_| work()).sum();
    println!("{name}: {:.1} ns a span", start.elapsed().as_nanos() as f64 / spans as f64);
}

fn scan_all(body: &[u8]) -> usize {
    let scanned = scan(body, |span| _ = black_box(span.at));
    scanned.expect("the generator writes valid requests").spans as usize
}

/// The spans of each trace.
fn pieces<'a>(bodies: &'a [Vec<u8>], outlines: &'a [Vec<u32>]) -> Vec<Vec<PieceSpan<'a>>> {
    let mut traces: HashMap<TraceId, Vec<PieceSpan<'a>>> = HashMap::new();
    for (body, outline) in bodies.iter().zip(outlines) {
        let scanned = scan(body, |span| {
            let edit = ThEdit::Keep;
            traces.entry(span.trace_id).or_default().push(PieceSpan {
                body,
                at: span.at,
                len: span.len,
                edit,
                utf8: true,
                outline: Outline::new(outline),
            });
        });
        scanned.expect("the generator writes valid requests");
    }
    traces.into_values().collect()
}

fn encode(spans: &[PieceSpan<'_>], edit: ThEdit, out: &mut Vec<u8>) -> usize {
    let spans: Vec<_> = spans.iter().map(|span| PieceSpan { edit, ..*span }).collect();
    out.clear();
    piece(&spans, out);
    black_box(out.len());
    spans.len()
}
