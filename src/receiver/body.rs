//! Reads a body into one piece, charged to the intake's memory before it is kept.
//!
//! A body that comes in one frame, as those of most senders do, is not copied. What a sender announces must fit from the
//! beginning, but nobody holds room by announcing alone.

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;

use super::{Intake, Rejection, Room};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body of several frames is given so much room at once, and then twice what it has: it moves seldom.
pub(super) const STEP: usize = 128 << 10;

/// What is known of a body's size.
pub(super) struct Bounds<F> {
    /// Bytes that the sender announces in a header.
    pub(super) announced: usize,
    /// Bytes of the whole, by its first ones; 0 as long as they do not tell.
    pub(super) expected: F,
    /// The largest that is read.
    pub(super) limit: usize,
}

/// Reads a body whole. `received` counts its bytes, also those of a body that is refused.
pub(super) async fn read<I, B>(
    intake: &I,
    body: &mut B,
    bounds: Bounds<impl Fn(&[u8]) -> usize>,
    received: &mut u64,
) -> Result<(I::Room, Bytes), Rejection>
where
    I: Intake,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    // A header may say anything: no more is believed than would be read.
    *received = bounds.announced.min(bounds.limit) as u64;
    if bounds.announced > bounds.limit {
        return Err(Rejection::TooLarge);
    }
    drop(intake.admit(bounds.announced)?);
    let mut room = intake.admit(0)?;
    let mut charged = 0;
    let mut gathered = Gathered::default();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Rejection::Malformed(format!("body ended early: {}", error.into())))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = gathered.len() + data.len();
        *received = (*received).max(length as u64);
        let expected = (bounds.expected)(gathered.first(&data));
        if expected.max(length) > bounds.limit {
            return Err(Rejection::TooLarge);
        }
        if length > charged {
            let all = if expected == 0 { bounds.limit } else { expected };
            let enough =
                if gathered.len() == 0 { length } else { all.min(STEP.max(2 * charged)).max(length) };
            room.grow(enough - charged)?;
            charged = enough;
        }
        gathered.push(data, charged);
    }
    Ok((room, gathered.into_bytes()))
}

/// One frame as it came, or several joined.
#[derive(Default)]
struct Gathered {
    whole: Bytes,
    joined: BytesMut,
}

impl Gathered {
    fn len(&self) -> usize {
        self.whole.len() + self.joined.len()
    }

    /// The first bytes, of which `next` may be.
    fn first<'a>(&'a self, next: &'a Bytes) -> &'a [u8] {
        match (self.joined.is_empty(), self.whole.is_empty()) {
            (false, _) => &self.joined,
            (true, false) => &self.whole,
            (true, true) => next,
        }
    }

    /// Into so much room.
    fn push(&mut self, data: Bytes, room: usize) {
        if self.len() == 0 {
            self.whole = data;
            return;
        }
        self.joined.reserve(room - self.joined.len());
        self.joined.extend_from_slice(&std::mem::take(&mut self.whole));
        self.joined.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.joined.is_empty() { self.whole } else { self.joined.freeze() }
    }
}
