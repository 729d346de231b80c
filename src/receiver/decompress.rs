//! Decompression that is bounded, and charged, while it runs.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::{MESSAGE_MAX, Rejection, Room};

/// What is read from a decoder, and charged, at once.
const STEP: usize = 64 << 10;

/// How a body or a message is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// Reads the value of `Content-Encoding` or `grpc-encoding`.
    pub(super) fn parse(value: &[u8]) -> Result<Self, Rejection> {
        match value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            b"zstd" => Ok(Self::Zstd),
            other => Err(Rejection::Unsupported(format!(
                "expected the encoding gzip, zstd or identity, found {}",
                other.escape_ascii()
            ))),
        }
    }

    /// Decompresses `wire`; `room` grows before memory does.
    pub(super) fn decompress<R: Room>(self, wire: Bytes, room: &mut R) -> Result<Bytes, Rejection> {
        match self {
            Self::Identity => Ok(wire),
            Self::Gzip => inflate(MultiGzDecoder::new(&*wire), room),
            Self::Zstd => inflate(zstd::Decoder::with_buffer(&*wire).map_err(broken)?, room),
        }
    }
}

fn inflate<R: Room>(mut decoder: impl Read, room: &mut R) -> Result<Bytes, Rejection> {
    let mut message = Vec::new();
    let mut filled = 0;
    loop {
        if filled == message.len() {
            // Doubled, as Vec would, but charged first. One byte above the limit tells that it is exceeded.
            let more = filled.max(STEP).min(MESSAGE_MAX + 1 - filled);
            room.grow(more)?;
            message.reserve_exact(more);
            message.resize(filled + more, 0);
        }
        match decoder.read(&mut message[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
        if filled > MESSAGE_MAX {
            return Err(Rejection::TooLarge);
        }
    }
    message.truncate(filled);
    Ok(message.into())
}

fn broken(error: io::Error) -> Rejection {
    Rejection::Malformed(format!("cannot decompress: {error}"))
}
