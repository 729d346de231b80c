//! Nothing that an instance needs ends in silence: a thread or task that dies ends the process, with its name.

use std::thread;

use tokio::sync::watch;

use super::logs::Failed;

/// Held by what must not end: if it panics, the process has failed.
#[derive(Debug)]
pub(super) struct Alarm {
    failed: Failed,
    what: String,
}

impl Alarm {
    pub(super) fn new(failed: &Failed, what: impl Into<String>) -> Self {
        Self { failed: failed.clone(), what: what.into() }
    }

    /// Runs a task that has to go on until the sender of `stop` is gone.
    pub(super) async fn over(self, stop: watch::Receiver<()>, work: impl Future<Output = ()>) {
        work.await;
        if stop.has_changed().is_ok() {
            self.raise("has ended");
        }
    }

    /// The first reason stands: what follows is its consequence.
    fn raise(&self, what: &str) {
        let reason = format!("the {} {what}", self.what);
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(reason);
            first
        });
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.raise("has died");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_a_failure_and_one_that_ends_is_none() {
        let (failed, failure) = watch::channel(None);
        let run = |work: fn()| {
            let alarm = Alarm::new(&failed, "judge");
            _ = thread::spawn(move || (alarm, work()).1).join();
            failure.borrow().clone()
        };
        assert_eq!(run(|| ()), None);
        assert_eq!(run(|| panic!("on purpose")), Some("the judge has died".to_owned()));
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_before_its_time_is_a_failure() {
        let run = async |stopped: bool, panics: bool| {
            let (failed, failure) = watch::channel(None);
            let (stop, stops) = watch::channel(());
            if stopped {
                drop(stop);
            }
            let work = async move {
                tokio::task::yield_now().await;
                assert!(!panics, "on purpose");
            };
            _ = tokio::spawn(Alarm::new(&failed, "receiver").over(stops, work)).await;
            failure.borrow().clone()
        };
        assert_eq!(run(true, false).await, None);
        assert_eq!(run(false, false).await.as_deref(), Some("the receiver has ended"));
        for stopped in [false, true] {
            assert_eq!(run(stopped, true).await.as_deref(), Some("the receiver has died"));
        }
    }
}
