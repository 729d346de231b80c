//! Traffic that is over, as requests in the order and at the times at which they came.

mod json;
mod log;
mod parquet;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;

use crate::log::{Disk, segment};
use crate::trace::TraceId;

/// A request of the input.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    /// Never before that of the request before it.
    pub(super) at_ms: u64,
    pub(super) tenant: String,
    pub(super) body: Bytes,
    /// Of a sample: its one trace, and for how many it stands.
    pub(super) weight: Option<(TraceId, f64)>,
}

/// Requests, one after the other.
pub(super) trait Arrivals {
    fn next(&mut self) -> anyhow::Result<Option<Arrival>>;
    /// Of [`Source::bytes`].
    fn bytes_read(&self) -> u64;
    /// Bytes that hold no request that can be read.
    fn lost_bytes(&self) -> u64;
}

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The input log of a data directory: all traffic of its time.
    InputLog,
    /// What an instance has kept: a sample.
    Parquet,
    /// OTLP/JSON, one request to a line.
    JsonLines,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InputLog => "input log",
            Self::Parquet => "kept Parquet",
            Self::JsonLines => "OTLP JSON lines",
        })
    }
}

/// An input that was recognised.
#[derive(Clone, Debug)]
pub struct Source {
    kind: Kind,
    path: PathBuf,
    /// Or folders, of an input log.
    files: Vec<PathBuf>,
    bytes: u64,
}

impl Source {
    /// Recognises a data directory (or its `input` folder), a folder of Parquet, or a file of either kind.
    pub fn detect(path: &Path) -> anyhow::Result<Self> {
        let at = || path.display();
        let metadata = std::fs::metadata(path).with_context(|| format!("read {}", at()))?;
        if metadata.is_file() {
            let kind = kind_of(path)?;
            return Ok(Self {
                kind,
                path: path.to_owned(),
                files: vec![path.to_owned()],
                bytes: metadata.len(),
            });
        }
        // Of a data directory; else the folder itself.
        for folders in [vec![path.join("past"), path.join("input")], vec![path.to_owned()]] {
            let mut bytes = 0;
            for folder in &folders {
                let segments = segment::numbers(&Disk, folder);
                let segments = segments.with_context(|| format!("read {}", folder.display()))?;
                bytes += segments.iter().map(|(_, bytes)| bytes).sum::<u64>();
            }
            if bytes > 0 {
                return Ok(Self { kind: Kind::InputLog, path: path.to_owned(), files: folders, bytes });
            }
        }
        let mut files = Vec::new();
        parquet_below(path, &mut files).with_context(|| format!("read {}", at()))?;
        if files.is_empty() {
            bail!(
                "{} holds neither an input log (data.path, with data.input_keep set) nor Parquet files; OTLP JSON lines \
                 are given as a file",
                at()
            );
        }
        files.sort();
        let sizes: Vec<u64> =
            files.iter().map(|file| Ok(std::fs::metadata(file)?.len())).collect::<std::io::Result<_>>()?;
        Ok(Self { kind: Kind::Parquet, path: path.to_owned(), files, bytes: sizes.iter().sum() })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it, as it lies on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn open(&self) -> anyhow::Result<Box<dyn Arrivals>> {
        Ok(match self.kind {
            Kind::InputLog => Box::new(log::Log::open(&self.files)?),
            Kind::Parquet => Box::new(parquet::Files::new(self.files.clone())),
            Kind::JsonLines => Box::new(json::Lines::open(&self.path)?),
        })
    }
}

/// By how the file begins.
fn kind_of(path: &Path) -> anyhow::Result<Kind> {
    let mut begin = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read(&mut begin));
    let read = read.with_context(|| format!("read {}", path.display()))?;
    match &begin[..read] {
        b"PAR1" => Ok(Kind::Parquet),
        [b'{', ..] | [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => Ok(Kind::JsonLines),
        _ => bail!("{} is neither Parquet nor OTLP JSON lines (plain, gzip or zstd)", path.display()),
    }
}

fn parquet_below(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            parquet_below(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    Ok(())
}
