//! The file between encoding and upload, on this program's own disk.

use std::io::{self, BufWriter, IoSlice, Write};
use std::path::Path;
use std::sync::Arc;

use super::encode::{EncodeError, Summary, encode};
use super::source::{PieceKey, Pieces, Segment};
use crate::log::{File, Open, Storage};

/// Column chunks are larger than this, page indexes and bounds are smaller.
const BUFFER_BYTES: usize = 64 << 10;

/// As [`encode`], to a file at `path`; what an earlier attempt left there is replaced. Nothing is synced: after a crash the
/// file is made again.
pub fn encode_to(
    storage: &dyn Storage,
    path: &Path,
    pieces: &dyn Pieces,
    keys: Vec<PieceKey>,
    segment: &Segment,
) -> Result<(Arc<dyn File>, Summary), EncodeError> {
    let file = storage.open(path, Open::Truncate).map_err(EncodeError::Create)?;
    let appender = Appender { file: file.clone(), at: 0 };
    let summary = encode(pieces, keys, segment, BufWriter::with_capacity(BUFFER_BYTES, appender))?;
    Ok((file, summary))
}

/// Writes at the end of a file.
#[derive(Debug)]
struct Appender {
    file: Arc<dyn File>,
    at: u64,
}

impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.at, &[IoSlice::new(bytes)])?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
