//! Where kept spans go: backends that take OTLP, and an object store.

use std::collections::{BTreeMap, BTreeSet};

use tailwater::exporter::otlp::{ByHand, Outcome, Request, Wait};

use crate::random::Random;
use crate::wire::{self, Seen};

/// How a backend is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Good,
    /// Answers errors.
    Failing,
    /// Takes what it is sent, and the answer does not come.
    Silent,
    /// Lets requests wait.
    Slow,
}

impl Mood {
    pub const ALL: [Self; 4] = [Self::Good, Self::Failing, Self::Silent, Self::Slow];
}

/// A request under way.
#[derive(Debug)]
pub struct Flight {
    pub id: u64,
    spans: Option<Vec<Seen>>,
}

/// A backend that takes OTLP, with the exporter that sends to it.
#[derive(Debug)]
pub struct Sink {
    pub name: &'static str,
    pub mood: Mood,
    pub exporter: Option<ByHand>,
    pub flights: Vec<Flight>,
    /// How often each span came.
    pub taken: BTreeMap<u64, u32>,
    /// How often each span came in this life, and how often of that nobody knows.
    pub this_life: BTreeMap<u64, (u32, u32)>,
    /// Refused for good.
    pub refused: BTreeMap<u64, u64>,
    /// Given up by a full outbox before it came.
    pub given_up: BTreeSet<u64>,
    /// How often the exporter was told the fate of each span in this life.
    pub settled: BTreeMap<u64, u32>,
    /// Spans that it was told are delivered in this life, and refused.
    pub told: (u64, u64),
    /// Since when it is configured without a break. None: it is not.
    pub since_ms: Option<u64>,
    /// The last outbox segment there was when it was configured; nothing of it is for this one.
    pub behind: u32,
    /// What came since somebody looked; none: something that is no OTLP.
    pub news: Vec<Option<Seen>>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    Failed,
    DeliveredUnanswered,
    Refused,
    Waits,
}

impl Sink {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            mood: Mood::Good,
            exporter: None,
            flights: Vec::new(),
            taken: BTreeMap::new(),
            this_life: BTreeMap::new(),
            refused: BTreeMap::new(),
            given_up: BTreeSet::new(),
            settled: BTreeMap::new(),
            told: (0, 0),
            since_ms: None,
            behind: 0,
            news: Vec::new(),
        }
    }

    pub fn launched(&mut self, request: &Request) {
        let body = request.body.concat();
        let spans = wire::read(&body);
        self.flights.push(Flight { id: request.id, spans });
    }

    /// Decides what becomes of a request under way.
    pub fn fate(&self, random: &mut Random) -> Fate {
        match self.mood {
            Mood::Good if random.percent(1) => Fate::Refused,
            Mood::Good => Fate::Delivered,
            Mood::Failing => Fate::Failed,
            Mood::Silent => random.pick(&[Fate::DeliveredUnanswered, Fate::Failed]),
            Mood::Slow => random.pick(&[Fate::Waits, Fate::Waits, Fate::Waits, Fate::Delivered]),
        }
    }

    /// Lets it happen; what the exporter is told.
    pub fn meet(&mut self, flight: Flight, fate: Fate) -> Outcome {
        match fate {
            Fate::Delivered => {
                self.told.0 += self.settle(&flight);
                self.take(flight, 0);
                Outcome::Delivered { rejected: 0, message: String::new() }
            }
            Fate::DeliveredUnanswered => {
                self.take(flight, 1);
                Outcome::Retry { wait: Wait::Backoff, error: "no answer".to_owned() }
            }
            Fate::Failed | Fate::Waits => {
                Outcome::Retry { wait: Wait::Backoff, error: "unavailable".to_owned() }
            }
            Fate::Refused => {
                self.told.1 += self.settle(&flight);
                for span in flight.spans.into_iter().flatten() {
                    self.refused.insert(span.id, span.hash);
                }
                Outcome::Refused { divisible: false, error: "refused".to_owned() }
            }
        }
    }

    /// Whether what began to be sent then is for it.
    pub fn wants(&self, begun_ms: Option<u64>) -> bool {
        let since = self.since_ms;
        since.is_some_and(|since| since == 0 || begun_ms.is_some_and(|begun| begun > since))
    }

    /// It was configured all the time, and nothing was given up.
    pub fn had_all(&self) -> bool {
        self.since_ms == Some(0) && self.given_up.is_empty()
    }

    fn settle(&mut self, flight: &Flight) -> u64 {
        let spans = flight.spans.as_deref().unwrap_or_default();
        spans.iter().for_each(|span| *self.settled.entry(span.id).or_default() += 1);
        spans.len() as u64
    }

    fn take(&mut self, flight: Flight, unanswered: u32) {
        let Some(spans) = flight.spans else {
            self.news.push(None);
            return;
        };
        for span in spans {
            self.news.push(Some(span));
            *self.taken.entry(span.id).or_default() += 1;
            let this_life = self.this_life.entry(span.id).or_default();
            *this_life = (this_life.0 + 1, this_life.1 + unanswered);
        }
    }

    /// The process ends: what was under way has arrived or has not.
    pub fn end_of_life(&mut self, random: &mut Random) {
        for flight in std::mem::take(&mut self.flights) {
            if random.percent(50) {
                self.take(flight, 0);
            }
        }
        self.exporter = None;
        self.this_life.clear();
        self.settled.clear();
        self.told = (0, 0);
    }
}

/// A store that puts objects whole or not at all.
#[derive(Debug, Default)]
pub struct ObjectStore {
    pub failing: bool,
    pub objects: BTreeMap<String, Vec<Seen>>,
    pub uploads: u64,
    pub repeated: u64,
    /// Given up by a full outbox.
    pub given_up: BTreeSet<u64>,
    /// The outbox was damaged: an upload that is repeated may say less.
    pub lenient: bool,
}

impl ObjectStore {
    /// Puts an object. An error says how it differs from the one that had its name.
    pub fn put(&mut self, name: String, rows: Vec<Seen>) -> Result<(), String> {
        self.uploads += 1;
        match self.objects.insert(name.clone(), rows.clone()) {
            Some(before) if before != rows && !self.lenient => {
                Err(format!("{name} held {} rows and is replaced by others, {}", before.len(), rows.len()))
            }
            Some(_) => {
                self.repeated += 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
