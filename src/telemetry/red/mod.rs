//! RED metrics of all traffic, before sampling: calls, errors and durations by service, span name and kind. A backend
//! behind a sampler cannot have them.
//!
//! Exact: every span of an accepted request counts once, what is dropped later included; a span that a sender sends
//! again counts again. A span without a start or an end has no duration: it counts as a call alone.
//!
//! Bounded: the first `max_series` combinations have series of their own, the others share one for each kind under the name
//! [`OTHER`]. When there is no room for another, those that were not counted for an hour give way: what is counted never goes
//! back, it begins anew after it was gone. Memory is about 200 bytes a series for each of up to [`STRIPES_MAX`] threads, and its names.
//!
//! Counting is done in stripes, one for each thread as far as they go, behind a lock that only a scrape contends; they are
//! added up when somebody looks. Durations are counted in buckets whose bounds are powers of two of a second, which are
//! bounds of Prometheus's native histograms of schema 0 too. Exemplars name kept traces only, because only those can
//! be looked at.

mod buckets;
mod config;
mod exemplars;
mod idle;
mod names;
mod shown;
mod stripe;

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use foldhash::quality::RandomState;
use parking_lot::{Mutex, MutexGuard, RwLock};

pub use config::Config;
pub use names::OTHER;

use crate::trace::TraceId;
use exemplars::{Exemplar, Exemplars};
use idle::Idle;
use names::Names;
use stripe::Stripe;

/// Stripes at most.
const STRIPES_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Red {
    hash: RandomState,
    names: RwLock<Names>,
    stripes: Vec<Mutex<Stripe>>,
    exemplars: Mutex<Exemplars>,
    /// A series had no room.
    wanted: AtomicBool,
    idle: Mutex<Idle>,
}

/// Where spans come from: the tenant and the `service.name` of their resource.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    tenant: &'a str,
    service: &'a str,
    hash: u64,
}

/// A span, as far as it counts.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// UTF-8 or nearly.
    pub name: &'a [u8],
    /// As OTLP numbers them.
    pub kind: i32,
    pub failed: bool,
    /// Unix nanoseconds; 0 is unset.
    pub start: u64,
    pub end: u64,
}

impl Call<'_> {
    /// Nanoseconds; none without a start or an end. One that ends before it starts took no time.
    fn duration(&self) -> Option<u64> {
        (self.start != 0 && self.end != 0).then(|| self.end.saturating_sub(self.start))
    }
}

impl Red {
    pub fn new(config: &Config) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            hash: RandomState::default(),
            names: RwLock::new(Names::new(config.max_series)),
            stripes: (0..threads.min(STRIPES_MAX)).map(|_| Mutex::default()).collect(),
            exemplars: Mutex::default(),
            wanted: AtomicBool::new(false),
            idle: Mutex::default(),
        }
    }

    /// To be made once for all spans of a resource.
    pub fn origin<'a>(&self, tenant: &'a str, service: &'a str) -> Origin<'a> {
        Origin { tenant, service, hash: self.hash.hash_one((tenant, service)) }
    }

    /// Counts the spans of one request, in one hold of a lock.
    pub fn counting(&self) -> Counting<'_> {
        thread_local! {
            static STRIPE: usize = NEXT.fetch_add(1, Relaxed);
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let stripe = STRIPE.with(|stripe| self.stripes[stripe % self.stripes.len()].lock());
        Counting { red: self, stripe }
    }

    /// Lets series go that are idle, if others want their room; to be called every few seconds.
    pub fn tidy(&self, now_ms: u64) {
        let mut idle = self.idle.lock();
        if !idle.is_time(now_ms) {
            return;
        }
        // Nobody counts meanwhile. Stripes before names, as whoever counts takes them.
        let mut stripes: Vec<MutexGuard<'_, Stripe>> = self.stripes.iter().map(Mutex::lock).collect();
        let mut calls: Vec<u64> = Vec::new();
        for counts in stripes.iter().map(|stripe| stripe.counts()) {
            calls.resize(calls.len().max(counts.len()), 0);
            calls.iter_mut().zip(counts).for_each(|(sum, counts)| *sum += counts.calls);
        }
        let mut gone = idle.look(&calls, now_ms);
        gone.retain(|number| !names::is_shared(*number));
        if gone.is_empty() || !self.wanted.swap(false, Relaxed) {
            return;
        }
        let mut names = self.names.write();
        names.remove(&gone);
        stripes.iter_mut().for_each(|stripe| stripe.forget(&gone));
        self.exemplars.lock().forget(&gone);
        idle.begin_anew(&gone, now_ms);
    }

    /// A span of a trace that was kept: an example of what its series counted.
    pub fn kept(&self, origin: Origin<'_>, call: Call<'_>, trace: TraceId, now_ms: u64) {
        let Some(number) = self.names.read().find(self.key(origin, call)) else { return };
        self.exemplars.lock().put(
            number,
            call.failed,
            Exemplar { trace, duration: call.duration(), at_ms: now_ms },
        );
    }

    #[inline]
    fn key(&self, origin: Origin<'_>, call: Call<'_>) -> u64 {
        let mut hasher = self.hash.build_hasher();
        origin.hash.hash(&mut hasher);
        hasher.write(call.name);
        hasher.write_i32(call.kind);
        hasher.finish()
    }
}

/// See [`Red::counting`].
#[derive(Debug)]
pub struct Counting<'a> {
    red: &'a Red,
    stripe: MutexGuard<'a, Stripe>,
}

impl Counting<'_> {
    #[inline]
    pub fn call(&mut self, origin: Origin<'_>, call: Call<'_>) {
        let key = self.red.key(origin, call);
        let number = match self.stripe.number(key) {
            Some(number) => number,
            None => self.first(key, origin, call),
        };
        self.stripe.count(number, call.failed, call.duration());
    }

    /// This stripe has not counted such a span before.
    #[cold]
    fn first(&mut self, key: u64, origin: Origin<'_>, call: Call<'_>) -> u32 {
        let names = &self.red.names;
        let (known, full) = {
            let names = names.read();
            (names.find(key), names.is_full())
        };
        // Once it is full nobody waits for others who have no room either.
        let add = || names.write().add(key, origin.tenant, origin.service, call.name, call.kind);
        match if full { known } else { known.or_else(add) } {
            Some(number) => {
                self.stripe.learn(key, number);
                number
            }
            None => {
                self.red.wanted.store(true, Relaxed);
                names::other(call.kind)
            }
        }
    }
}

#[cfg(test)]
mod tests;
