//! Panics, wherever they happen: told in the log and counted. Each is a defect of this program.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{PanicHookInfo, set_hook};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Of this process: there is one hook in it.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// From now on the log tells of panics, instead of standard error.
pub fn tell() {
    set_hook(Box::new(told));
}

fn told(panic: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Relaxed);
    let thread = std::thread::current();
    let (thread, reason) = (thread.name().unwrap_or_default(), text(panic.payload()));
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    // Only if `RUST_BACKTRACE` asks for it.
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
    tracing::error!(thread, at, reason, backtrace, "this program has a defect: panic");
}

/// So many so far.
pub fn count() -> u64 {
    PANICS.load(Relaxed)
}

/// What a panic said.
pub fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("of an unknown kind")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_said_is_read_whether_it_was_formatted_or_not() {
        let say = |panics: fn()| {
            let payload = std::panic::catch_unwind(panics).unwrap_err();
            text(&*payload).to_owned()
        };
        assert_eq!(say(|| panic!("plain")), "plain");
        assert_eq!(say(|| panic!("number {}", 7)), "number 7");
        assert_eq!(say(|| std::panic::panic_any(7)), "of an unknown kind");
    }
}
