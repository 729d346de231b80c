//! Charges a request's bytes to the intake's memory as they come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::{Intake, Rejection, Room};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The account of one request: what came over the wire, and the message in it if that is held apart.
pub(super) struct Account<I: Intake> {
    intake: I,
    wire: Option<I::Room>,
    message: Option<I::Room>,
    received: u64,
    refused: Option<Rejection>,
}

/// Shared by the body, the decoder and the handler of one request; never waited for.
pub(super) type SharedAccount<I> = Arc<Mutex<Account<I>>>;

impl<I: Intake> Account<I> {
    pub(super) fn shared(intake: I) -> SharedAccount<I> {
        Arc::new(Mutex::new(Self { intake, wire: None, message: None, received: 0, refused: None }))
    }

    /// Charges bytes of the wire.
    fn charge(&mut self, bytes: usize) -> Result<(), Refused> {
        self.received += bytes as u64;
        let charged = match &mut self.wire {
            Some(room) => room.grow(bytes),
            None => self.intake.admit(bytes).map(|room| self.wire = Some(room)),
        };
        charged.map_err(|rejection| self.refuse(rejection))
    }

    /// Charges a message that does not live in the bytes of the wire.
    pub(super) fn charge_message(&mut self, bytes: usize) -> Result<(), Refused> {
        match self.intake.admit(bytes) {
            Ok(room) => self.message = Some(room),
            Err(rejection) => return Err(self.refuse(rejection)),
        }
        Ok(())
    }

    fn refuse(&mut self, rejection: Rejection) -> Refused {
        self.refused = Some(rejection);
        Refused
    }

    /// The rejection behind a [`Refused`].
    pub(super) fn take_refused(&mut self) -> Option<Rejection> {
        self.refused.take()
    }

    /// The room of the message; what only the wire needed is given back.
    pub(super) fn take_room(&mut self) -> Result<I::Room, Rejection> {
        let wire = self.wire.take();
        match self.message.take().or(wire) {
            Some(room) => Ok(room),
            None => self.intake.admit(0),
        }
    }

    /// Bytes that came over the wire.
    pub(super) fn received(&self) -> u64 {
        self.received
    }
}

/// A charge was refused; the account knows why.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("refused")]
pub(super) struct Refused;

/// A body whose frames are charged before they are handed on.
pub(super) struct Charged<B, I: Intake> {
    body: B,
    account: SharedAccount<I>,
}

impl<B, I: Intake> Charged<B, I> {
    pub(super) fn new(body: B, account: SharedAccount<I>) -> Self {
        Self { body, account }
    }
}

impl<B, I> Body for Charged<B, I>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    I: Intake,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref()
            && let Err(refused) = self.account.lock().charge(data.len())
        {
            return Poll::Ready(Some(Err(refused.into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
