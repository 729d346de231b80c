//! Everything learned, as plain values for the state file.

use super::windows::Windows;
use super::{Bucket, Learner, Percentile, Sketch, Slow};
use crate::trace::TenantId;

/// Everything that [`Slow`] has learned and published.
///
/// Tenants are numbers of this process: whoever writes them to a file writes their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlowSnapshot {
    pub published_ms: u64,
    pub sketches: Vec<SketchSnapshot>,
}

/// One operation, or the `other` operations of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct SketchSnapshot {
    pub tenant: TenantId,
    pub service: String,
    pub name: Option<String>,
    /// Number of the current window, counted from the Unix epoch.
    pub window: u32,
    pub current: WindowSnapshot,
    pub previous: WindowSnapshot,
    /// Had enough observations at the last publication.
    pub grown: bool,
    pub thresholds: Vec<(Percentile, u64)>,
}

/// The buckets that were hit in one window, lowest first, and how often.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowSnapshot {
    pub buckets: Vec<(u16, u32)>,
}

impl WindowSnapshot {
    fn of(sketch: &Sketch) -> Self {
        Self { buckets: sketch.buckets().map(|(bucket, times)| (bucket.0, times)).collect() }
    }

    fn sketch(&self) -> Sketch {
        let mut sketch = Sketch::default();
        self.buckets.iter().for_each(|&(bucket, times)| sketch.add(Bucket(bucket), times));
        sketch
    }
}

impl Slow {
    pub fn snapshot(&self) -> SlowSnapshot {
        let published_ms = self.published_ms.load(std::sync::atomic::Ordering::Relaxed);
        let sketches = self.learners.iter().map(|learner| SketchSnapshot {
            tenant: learner.tenant,
            service: learner.service.to_string(),
            name: learner.name.as_deref().map(str::to_owned),
            window: learner.windows.window,
            current: WindowSnapshot::of(&learner.windows.current),
            previous: WindowSnapshot::of(&learner.windows.previous),
            grown: learner.windows.grown,
            thresholds: learner.windows.thresholds.to_vec(),
        });
        SlowSnapshot { published_ms, sketches: sketches.collect() }
    }

    /// Takes up what a snapshot knows. Meant for a new one; operations beyond the bounds are left out.
    pub fn restore(&self, snapshot: &SlowSnapshot) {
        self.published_ms.store(snapshot.published_ms, std::sync::atomic::Ordering::Relaxed);
        for sketch in &snapshot.sketches {
            let name = sketch.name.as_deref();
            let counter = self.counter(name.is_some());
            let max = if name.is_some() { super::OPERATIONS_MAX } else { super::SERVICES_MAX + 1 };
            if counter.load(std::sync::atomic::Ordering::Relaxed) >= max {
                continue;
            }
            let identity = (sketch.tenant, &*sketch.service, name);
            let other = self.service(sketch.tenant, &sketch.service);
            let key = match name {
                Some(name) => self.operation_of(other, name.as_bytes()).own,
                None if identity == super::REST => self.rest_key(),
                None => other,
            };
            let learner = Learner {
                tenant: sketch.tenant,
                service: Box::from(&*sketch.service),
                name: name.map(Box::from),
                other,
                windows: Windows {
                    window: sketch.window,
                    current: sketch.current.sketch(),
                    previous: sketch.previous.sketch(),
                    grown: sketch.grown,
                    thresholds: sketch.thresholds.clone().into(),
                },
            };
            if self.learners.insert(key, learner).is_none() {
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
}
