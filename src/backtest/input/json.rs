//! OTLP/JSON, one request to a line, as the Collector's file exporter writes it; plain, gzip or zstd.
//!
//! The lines do not say when they came: a request comes when half of its spans have ended, and never before the one
//! before it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context;
use flate2::read::MultiGzDecoder;

use super::{Arrival, Arrivals};
use crate::otlp;
use crate::receiver::json_to_protobuf;

/// A line that is longer is none.
const LINE_MAX: u64 = 256 << 20;

pub(super) struct Lines {
    text: Box<dyn BufRead>,
    read: Arc<AtomicU64>,
    number: u64,
    now_ms: u64,
    lost: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let at = || format!("read {}", path.display());
        let mut begin = [0; 2];
        let length = File::open(path).and_then(|mut file| file.read(&mut begin)).with_context(at)?;
        let read = Arc::new(AtomicU64::new(0));
        let file = Counted { file: File::open(path).with_context(at)?, read: read.clone() };
        let text: Box<dyn BufRead> = match &begin[..length] {
            [0x1f, 0x8b] => Box::new(BufReader::new(MultiGzDecoder::new(file))),
            [0x28, 0xb5] => {
                Box::new(BufReader::new(zstd::stream::read::Decoder::new(file).with_context(at)?))
            }
            _ => Box::new(BufReader::with_capacity(1 << 20, file)),
        };
        Ok(Self { text, read, number: 0, now_ms: 0, lost: 0 })
    }

    fn line(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.number += 1;
        let read = match self.text.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            // A packed file that ends in the middle, as one that is being written does.
            Err(_) if self.number > 1 => {
                self.lost += line.len().max(1) as u64;
                return Ok(None);
            }
            read => read.with_context(|| format!("read line {}", self.number))?,
        };
        anyhow::ensure!((read as u64) < LINE_MAX, "line {} is longer than {LINE_MAX} bytes", self.number);
        Ok((read > 0).then_some(line))
    }
}

impl Arrivals for Lines {
    fn next(&mut self) -> anyhow::Result<Option<Arrival>> {
        while let Some(line) = self.line()? {
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            // Metrics and logs may stand in the same file: they are requests without spans.
            let Ok(body) = json_to_protobuf(text) else {
                self.lost += line.len() as u64;
                continue;
            };
            let mut ends = Vec::new();
            let _ = otlp::scan(&body, |span| ends.push(span.end / 1_000_000));
            if ends.is_empty() {
                continue;
            }
            let middle = ends.len() / 2;
            self.now_ms = self.now_ms.max(*ends.select_nth_unstable(middle).1);
            let tenant = String::new();
            return Ok(Some(Arrival { at_ms: self.now_ms, tenant, body, weight: None }));
        }
        Ok(None)
    }

    fn bytes_read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    fn lost_bytes(&self) -> u64 {
        self.lost
    }
}

/// Counts what is read of a file, packed as it is.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(into)?;
        self.read.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}
