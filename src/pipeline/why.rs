//! Answers for one trace from memory: the index, the root's bytes, the policies in force.

use std::sync::Arc;

use super::engine::Engine;
use super::reload::Reloads;
use crate::buffer::{Key, Live, Now, Remembered, Seen, Sent, State as Life};
use crate::otlp::{self, SpanView};
use crate::sampler::{Keep, OperationKey, PolicyConfig};
use crate::telemetry::why::{Account, Draw, Operation, SlowAbove, State, Testimony, Verdict, Witness};
use crate::trace::{PolicyId, Randomness, TenantId, Threshold, TraceId};

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) engine: Arc<Engine>,
    pub(super) reloads: Arc<Reloads>,
}

impl Witness for Memory {
    fn testify(&self, trace: TraceId, tenant: Option<&str>) -> Testimony {
        let now = self.engine.clock.now();
        let tenants = self.engine.tenants().into_iter();
        let asked = tenants.filter(|(_, name)| tenant.is_none_or(|tenant| **name == *tenant));
        let traces = asked.filter_map(|(id, name)| {
            let key = Key { trace, tenant: id };
            Some(match self.engine.buffer.look_up(key, now)? {
                Seen::Live(live) => self.live(key, &name, &live, now),
                Seen::Remembered(remembered) => self.remembered(&name, &remembered, now),
            })
        });
        Testimony { window_seconds: self.engine.window_ms() as f64 / 1e3, traces: traces.collect() }
    }
}

impl Memory {
    fn live(&self, key: Key, tenant: &str, live: &Live, now: Now) -> Account {
        let known = &live.known;
        let state = state(known.state);
        let randomness = self.engine.randomness(key.trace, &live.summary);
        let dropped_by = known.dropped_by.filter(|_| state != State::Kept);
        let verdict = match (&known.sent, dropped_by) {
            _ if state == State::Waiting => None,
            // Of a stream the verdict by which a unit of it left last.
            (Some(sent), _) if state == State::Stream => {
                let left_ms = known.units.iter().map(|unit| unit.when_ms).max().unwrap_or(known.judged_ms);
                Some(self.sent(sent, randomness, left_ms, now))
            }
            (_, Some((policy, generation))) => {
                let in_force = self.engine.policies.load();
                let still = generation == in_force.generation;
                let name =
                    if still { in_force.policies.name(policy) } else { "(of an earlier configuration)" };
                let threshold =
                    if policy == PolicyId::NONE { Some(Threshold::NEVER) } else { self.share_of(name) };
                Some(self.verdict(name, randomness, threshold, known.judged_ms, now))
            }
            (Some(sent), None) => Some(self.sent(sent, randomness, known.judged_ms, now)),
            (None, None) => None,
        };
        Account {
            tenant: tenant.to_owned(),
            state,
            spans: Some(live.spans),
            waiting_spans: known.unjudged,
            due_in_seconds: (known.unjudged > 0).then_some(live.due_in_ms as f64 / 1e3),
            whole: known.root_seen,
            complete: live.complete,
            verdict,
            operation: self.operation(key.tenant, live),
        }
    }

    fn remembered(&self, tenant: &str, remembered: &Remembered, now: Now) -> Account {
        let randomness = self.engine.randomness_of_id(remembered.key.trace);
        Account {
            tenant: tenant.to_owned(),
            state: state(remembered.state),
            spans: None,
            waiting_spans: 0,
            due_in_seconds: None,
            whole: remembered.state == Life::Kept,
            complete: false,
            verdict: remembered
                .sent
                .as_ref()
                .map(|sent| self.sent(sent, randomness, remembered.judged_ms, now)),
            operation: None,
        }
    }

    fn sent(&self, sent: &Sent, randomness: Randomness, judged_ms: u64, now: Now) -> Verdict {
        self.verdict(&sent.policy, randomness, Some(sent.threshold), judged_ms, now)
    }

    fn verdict(
        &self,
        policy: &str,
        randomness: Randomness,
        threshold: Option<Threshold>,
        judged_ms: u64,
        now: Now,
    ) -> Verdict {
        Verdict {
            policy: policy.to_owned(),
            asks: self.reloads.policy(policy, asks),
            judged_at_ms: judged_ms,
            age_seconds: now.ms.saturating_sub(judged_ms) as f64 / 1e3,
            draw: Draw::new(randomness, threshold),
        }
    }

    /// Of a budget the threshold was that of its moment, and is not kept for what was dropped.
    fn share_of(&self, policy: &str) -> Option<Threshold> {
        let share = |policy: &PolicyConfig| match policy.keep {
            Keep::Share(share) => Some(Threshold::of(share)),
            Keep::Formula(_) => None,
        };
        self.reloads.policy(policy, share).flatten()
    }

    fn operation(&self, tenant: TenantId, live: &Live) -> Option<Operation> {
        let root = live.root?;
        let request = self.engine.request_of(root.position())?;
        let at = root.offset - request.at;
        let place = otlp::locate(&request.body, at)?;
        let span = SpanView::new(&request.body[at as usize..(at + root.len()) as usize]);
        let (service, name) = (place.resource_spans.resource().service_name(), span.name());
        let start = span.start();
        let duration = (start != 0).then(|| span.end().max(live.summary.latest_end).saturating_sub(start));
        let slow = &self.engine.slow;
        let key = slow.operation(OperationKey { tenant, service: &service, name: &name });
        let thresholds =
            self.engine.policies.load().policies.percentiles().into_iter().map(|percentile| SlowAbove {
                percentile: percentile.to_string(),
                seconds: slow.threshold(key, percentile).map(seconds),
                slow: duration.is_some_and(|duration| slow.is_slow(key, percentile, duration)),
            });
        Some(Operation {
            thresholds: thresholds.collect(),
            duration_seconds: duration.map(seconds),
            service: service.into_owned(),
            name: name.into_owned(),
        })
    }
}

fn state(life: Life) -> State {
    match life {
        Life::Open => State::Waiting,
        Life::Kept => State::Kept,
        Life::Dropped => State::Dropped,
        Life::Stream => State::Stream,
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// The conditions of a policy, as they are typed.
fn asks(policy: &PolicyConfig) -> String {
    let condition = |key: &str, text: Option<&str>| text.map(|text| format!("{key} {text}"));
    let parts = [
        condition("match", policy.matches.as_ref().map(|text| text.0.as_str())),
        condition("unless", policy.unless.as_ref().map(|text| text.0.as_str())),
        condition("slower_than", policy.slower_than.map(|percentile| percentile.to_string()).as_deref()),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}
