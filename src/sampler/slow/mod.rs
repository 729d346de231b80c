//! Learns what is slow for each operation, from all traffic.
//!
//! An operation is (tenant, service, span name) of a unit's root. Its durations are counted in the
//! current and the previous five minutes; every ten seconds the upper edges of the buckets in which its
//! percentiles lie are published, and slow is what lies strictly above. An operation that had less than
//! [`OBSERVATIONS_MIN`] observations when thresholds were last published, or for which there is no room,
//! is compared with its service's `other` sketch, which only such operations feed. So a trace is compared
//! only with a sketch that its like feed, and in steady traffic at most 5 % of what feeds a sketch lies
//! above its p95.
//!
//! Memory is bounded: [`OPERATIONS_MAX`] operations and [`SERVICES_MAX`] services (the rest share one
//! sketch) of two sketches each; typically 10 KiB an operation, 130 MiB if every one of them has
//! durations in every power of two from 1 ns to 78 h.
//!
//! Observations come from one thread; any thread may read.

mod percentile;
mod sketch;
mod snapshot;
mod windows;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use parking_lot::Mutex;

pub use percentile::{Percentile, PercentileError};
pub use sketch::{BYTES_MAX, Bucket, Sketch};
pub use snapshot::{SketchSnapshot, SlowSnapshot, WindowSnapshot};
pub use windows::{OBSERVATIONS_MIN, WINDOW_MS};

use crate::trace::TenantId;
use windows::{Windows, window_of};

/// Operations with a sketch of their own.
pub const OPERATIONS_MAX: usize = 2_000;
/// Services with an `other` sketch of their own.
pub const SERVICES_MAX: usize = 1_000;
/// Time between two publications.
pub const PUBLISH_EVERY_MS: u64 = 10_000;

/// What a unit's duration is compared with: its root's service and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperationKey<'a> {
    pub tenant: TenantId,
    pub service: &'a str,
    pub name: &'a str,
}

/// An operation without its names: keyed hashes, of this process only.
///
/// Two operations of one hash would share a sketch; among as many as there is room for, one in 10^12 processes has two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    own: u64,
    /// Of all operations of its service.
    other: u64,
}

impl Operation {
    /// As two integers, for those who only keep it.
    pub fn to_words(self) -> [u64; 2] {
        [self.own, self.other]
    }

    pub fn from_words([own, other]: [u64; 2]) -> Self {
        Self { own, other }
    }
}

/// The names of an operation that was not met before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationName {
    pub tenant: TenantId,
    pub service: Box<str>,
    pub name: Box<str>,
}

/// Where a duration was counted, to correct it later. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    sketch: u64,
    window: u32,
    bucket: Bucket,
    fed: Fed,
}

impl Learned {
    /// As two integers, for those who only keep it.
    pub fn to_words(self) -> [u64; 2] {
        let fed = u64::from(self.fed == Fed::Both);
        [self.sketch, u64::from(self.window) << 32 | u64::from(self.bucket.0) << 1 | fed]
    }

    pub fn from_words([sketch, rest]: [u64; 2]) -> Self {
        let fed = if rest & 1 == 1 { Fed::Both } else { Fed::One };
        Self { sketch, window: (rest >> 32) as u32, bucket: Bucket((rest as u32 >> 1) as u16), fed }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// One sketch: the operation's own, or the `other` of its service.
    One,
    /// The operation's own and the `other` of its service.
    Both,
}

impl From<OperationKey<'_>> for OperationName {
    fn from(OperationKey { tenant, service, name }: OperationKey<'_>) -> Self {
        Self { tenant, service: service.into(), name: name.into() }
    }
}

/// What is known of an operation, or of the `other` operations of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub tenant: TenantId,
    pub service: String,
    /// None: all operations of the service that have no threshold of their own.
    pub name: Option<String>,
    /// In the current and the previous window.
    pub observations: u64,
    /// Nanoseconds; empty while nothing is slow.
    pub thresholds: Vec<(Percentile, u64)>,
}

/// The sketches of all operations and what was published of them.
#[derive(Debug)]
pub struct Slow {
    /// By keyed hash of (tenant, service, name).
    learners: DashMap<u64, Learner, RandomState>,
    hash: RandomState,
    percentiles: Mutex<Vec<Percentile>>,
    operations: AtomicUsize,
    services: AtomicUsize,
    published_ms: AtomicU64,
}

#[derive(Debug)]
struct Learner {
    tenant: TenantId,
    service: Box<str>,
    name: Option<Box<str>>,
    /// Key of the `other` sketch beside it.
    other: u64,
    windows: Windows,
}

impl Slow {
    /// Publishes thresholds of these percentiles.
    pub fn new(percentiles: &[Percentile]) -> Self {
        let slow = Self {
            learners: DashMap::with_hasher(RandomState::default()),
            hash: RandomState::default(),
            percentiles: Mutex::default(),
            operations: AtomicUsize::new(0),
            services: AtomicUsize::new(0),
            published_ms: AtomicU64::new(0),
        };
        slow.set_percentiles(percentiles);
        slow
    }

    /// Asks for other percentiles from now on: thresholds are published anew from what is known.
    pub fn set_percentiles(&self, percentiles: &[Percentile]) {
        let mut wanted = percentiles.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        self.learners.iter_mut().for_each(|mut learner| learner.windows.publish(&wanted));
        *self.percentiles.lock() = wanted;
    }

    /// The operation of a root, and what those of one service have in common.
    pub fn operation(&self, key: OperationKey<'_>) -> Operation {
        self.operation_of(self.service(key.tenant, key.service), key.name.as_bytes())
    }

    /// A service, by which [`Self::operation_of`] knows it.
    pub fn service(&self, tenant: TenantId, service: &str) -> u64 {
        self.hash.hash_one((tenant, service))
    }

    /// The operation of this name of a service, in UTF-8.
    pub fn operation_of(&self, service: u64, name: &[u8]) -> Operation {
        Operation { own: self.hash.hash_one((service, name)), other: service }
    }

    /// Counts the duration of a unit, at its first judgement. `name` is asked for what an operation is called that has
    /// no sketch yet.
    pub fn observe(
        &self,
        operation: Operation,
        name: &dyn Fn() -> Option<OperationName>,
        duration_ns: u64,
        now_ms: u64,
    ) -> Learned {
        let (bucket, window) = (Bucket::of(duration_ns), window_of(now_ms));
        let Operation { own, other } = operation;
        let of_operation =
            || self.has_room(true).then(name).flatten().map(Learner::of_operation(other, window));
        let own_grown = self.feed(own, window, bucket, of_operation);
        if own_grown == Some(true) {
            return Learned { sketch: own, window, bucket, fed: Fed::One };
        }
        let mut shared = other;
        let of_service = || self.has_room(false).then(name).flatten().map(Learner::of_service(other, window));
        if self.feed(other, window, bucket, of_service).is_none() {
            shared = self.rest_key();
            self.feed(shared, window, bucket, || Some(Learner::of_the_rest(shared, window)));
        }
        match own_grown {
            Some(_) => Learned { sketch: own, window, bucket, fed: Fed::Both },
            None => Learned { sketch: shared, window, bucket, fed: Fed::One },
        }
    }

    /// Moves an observation to a duration that has become known since. What is older than two windows stays.
    pub fn correct(&self, learned: Learned, duration_ns: u64) -> Learned {
        let bucket = Bucket::of(duration_ns);
        if bucket == learned.bucket {
            return learned;
        }
        let other = self.learners.get_mut(&learned.sketch).map(|mut learner| {
            learner.windows.correct(learned.window, learned.bucket, bucket);
            learner.other
        });
        if let (Fed::Both, Some(other)) = (learned.fed, other)
            && let Some(mut learner) = self.learners.get_mut(&other)
        {
            learner.windows.correct(learned.window, learned.bucket, bucket);
        }
        Learned { bucket, ..learned }
    }

    /// The longest duration of the operation that is not slow. None while nothing of it is slow.
    pub fn threshold(&self, operation: Operation, percentile: Percentile) -> Option<u64> {
        if let Some(learner) = self.learners.get(&operation.own)
            && learner.windows.grown
        {
            return learner.windows.threshold(percentile);
        }
        match self.learners.get(&operation.other) {
            Some(learner) => learner.windows.threshold(percentile),
            None => self.learners.get(&self.rest_key())?.windows.threshold(percentile),
        }
    }

    /// Whether a unit of this duration is slow for its operation.
    pub fn is_slow(&self, operation: Operation, percentile: Percentile, duration_ns: u64) -> bool {
        let edge = Bucket::of(duration_ns).upper_edge();
        self.threshold(operation, percentile).is_some_and(|threshold| edge > threshold)
    }

    /// Publishes thresholds and forgets idle operations if it is time; says whether it did.
    pub fn publish(&self, now_ms: u64) -> bool {
        let published = self.published_ms.load(Ordering::Relaxed);
        let early = published <= now_ms && now_ms - published < PUBLISH_EVERY_MS;
        if early && published != 0 {
            return false;
        }
        self.published_ms.store(now_ms, Ordering::Relaxed);
        let percentiles = self.percentiles.lock().clone();
        let window = window_of(now_ms);
        self.learners.retain(|_, learner| {
            learner.windows.turn_to(window);
            learner.windows.publish(&percentiles);
            let idle = learner.windows.count() == 0;
            self.counter(learner.name.is_some()).fetch_sub(usize::from(idle), Ordering::Relaxed);
            !idle
        });
        true
    }

    /// What is known of every operation, in no order.
    pub fn known(&self) -> Vec<Known> {
        let known = self.learners.iter().map(|learner| Known {
            tenant: learner.tenant,
            service: learner.service.to_string(),
            name: learner.name.as_deref().map(str::to_owned),
            observations: learner.windows.count(),
            thresholds: learner.windows.thresholds.to_vec(),
        });
        known.collect()
    }

    /// Key of the one sketch for the services beyond the bound.
    fn rest_key(&self) -> u64 {
        self.hash.hash_one("the services beyond the bound")
    }

    fn counter(&self, is_operation: bool) -> &AtomicUsize {
        if is_operation { &self.operations } else { &self.services }
    }

    /// Whether one more operation, or one more service, may have a sketch of its own.
    fn has_room(&self, is_operation: bool) -> bool {
        let max = if is_operation { OPERATIONS_MAX } else { SERVICES_MAX };
        self.counter(is_operation).load(Ordering::Relaxed) < max
    }

    /// Counts a duration in the sketch under `key`. If there is none, in the one that `learner` makes; it makes none
    /// where there is no room. None: it did not. Else whether the sketch has a threshold of its own.
    fn feed(
        &self,
        key: u64,
        window: u32,
        bucket: Bucket,
        learner: impl FnOnce() -> Option<Learner>,
    ) -> Option<bool> {
        if let Some(mut learner) = self.learners.get_mut(&key) {
            learner.windows.turn_to(window);
            learner.windows.add(bucket);
            return Some(learner.windows.grown);
        }
        let mut learner = learner()?;
        learner.windows.add(bucket);
        self.counter(learner.name.is_some()).fetch_add(1, Ordering::Relaxed);
        self.learners.insert(key, learner);
        Some(false)
    }
}

impl Learner {
    fn of_operation(other: u64, window: u32) -> impl Fn(OperationName) -> Self {
        move |OperationName { tenant, service, name }| Self {
            tenant,
            service,
            name: Some(name),
            other,
            windows: Windows::new(window),
        }
    }

    fn of_service(other: u64, window: u32) -> impl Fn(OperationName) -> Self {
        move |OperationName { tenant, service, .. }| Self {
            tenant,
            service,
            name: None,
            other,
            windows: Windows::new(window),
        }
    }

    fn of_the_rest(other: u64, window: u32) -> Self {
        let (tenant, service, _) = REST;
        Self { tenant, service: service.into(), name: None, other, windows: Windows::new(window) }
    }
}

type Name<'a> = (TenantId, &'a str, Option<&'a str>);

/// The name of the sketch that the services beyond the bound share; no sender can be called this.
const REST: Name<'static> = (TenantId::EVERY, "other services", None);

#[cfg(test)]
mod tests;
