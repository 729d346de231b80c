//! What a running instance knows of one trace: `GET /why?trace=…`, as JSON.
//!
//! It is a look, not a judgement: nothing is counted, no policy is asked again.

use serde::{Deserialize, Serialize};

use crate::trace::{Randomness, Threshold, TraceId};

/// Somebody who can be asked about a trace.
pub trait Witness: Send + Sync {
    /// About the traces of this ID, of one tenant or of every one.
    fn testify(&self, trace: TraceId, tenant: Option<&str>) -> Testimony;
}

/// All that an instance knows now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Testimony {
    /// Seconds of traffic that the memory log holds; what was dropped longer ago is not known any more.
    pub window_seconds: f64,
    /// One for each tenant that has a trace of this ID.
    pub traces: Vec<Account>,
}

/// Where a trace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not judged yet.
    Waiting,
    Kept,
    Dropped,
    /// Judged by units, each for itself.
    Stream,
}

/// One trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub tenant: String,
    pub state: State,
    /// Spans of it that are in memory. None: only its verdict is remembered.
    pub spans: Option<u32>,
    /// Spans among them that wait for a judgement, and for how long still.
    pub waiting_spans: u32,
    pub due_in_seconds: Option<f64>,
    /// Its root was seen: it is judged as one unit.
    pub whole: bool,
    /// Nothing of it has left memory.
    pub complete: bool,
    pub verdict: Option<Verdict>,
    /// None: no root is in memory.
    pub operation: Option<Operation>,
}

/// What was decided, and by what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub policy: String,
    /// What the policy asks, if it is still in force.
    pub asks: Option<String>,
    pub judged_at_ms: u64,
    pub age_seconds: f64,
    pub draw: Draw,
}

/// The randomness of the trace against the threshold of its share: kept if R >= T.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// 14 hexadecimal digits.
    pub randomness: String,
    /// The same; None where it is not known any more.
    pub threshold: Option<String>,
}

impl Draw {
    pub fn new(randomness: Randomness, threshold: Option<Threshold>) -> Self {
        let digits = |bits: u64| format!("{bits:014x}");
        Self { randomness: digits(randomness.0), threshold: threshold.map(|threshold| digits(threshold.0)) }
    }
}

/// What a trace is compared with: those of its own root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    pub service: String,
    pub name: String,
    /// None: the root has no start.
    pub duration_seconds: Option<f64>,
    /// One for each percentile that a policy asks for.
    pub thresholds: Vec<SlowAbove>,
}

/// A learned threshold, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowAbove {
    pub percentile: String,
    /// None: too little is known of the operation, so nothing of it is slow.
    pub seconds: Option<f64>,
    pub slow: bool,
}
