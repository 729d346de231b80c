//! The last warnings and errors of the log, for the status page.
//!
//! Logs report changes of state, never items, so the last few say what went wrong lately.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// What is remembered.
const NOTICES_MAX: usize = 20;

/// A warning or an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Unix milliseconds.
    pub at_ms: u64,
    pub level: &'static str,
    pub text: String,
}

/// The last of them.
#[derive(Debug)]
pub struct Notices(Mutex<VecDeque<Notice>>);

/// Of this process: there is one subscriber to its log.
pub static NOTICES: Notices = Notices(Mutex::new(VecDeque::new()));

impl Notices {
    /// Newest first.
    pub fn last(&self) -> Vec<Notice> {
        self.0.lock().iter().rev().cloned().collect()
    }

    fn push(&self, notice: Notice) {
        let mut last = self.0.lock();
        if last.len() == NOTICES_MAX {
            last.pop_front();
        }
        last.push_back(notice);
    }
}

/// Remembers what passes by.
pub(super) struct Remember(pub(super) &'static Notices);

impl<S: Subscriber> Layer<S> for Remember {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = text.message + &text.fields;
        self.0.push(Notice { at_ms: at.as_millis() as u64, level: level.as_str(), text });
    }
}

/// The message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn noticed(events: impl FnOnce()) -> Vec<Notice> {
        let notices: &'static Notices = Box::leak(Box::new(Notices(Mutex::default())));
        let subscriber = tracing_subscriber::registry().with(Remember(notices));
        tracing::subscriber::with_default(subscriber, events);
        notices.last()
    }

    #[test]
    fn warnings_are_remembered_with_their_fields_and_others_are_not() {
        let last = noticed(|| {
            tracing::info!("all is well");
            tracing::warn!(exporter = "tempo", error = %"refused", "cannot send");
        });
        let told: Vec<_> = last.iter().map(|notice| (notice.level, notice.text.as_str())).collect();
        assert_eq!(told, [("WARN", "cannot send exporter=tempo error=refused")]);
    }

    #[test]
    fn no_more_than_the_newest_are_remembered() {
        let last = noticed(|| (0..3 * NOTICES_MAX).for_each(|number| tracing::error!(number, "flood")));
        assert_eq!(last.len(), NOTICES_MAX);
        assert_eq!(last[0].text, format!("flood number={}", 3 * NOTICES_MAX - 1));
    }
}
