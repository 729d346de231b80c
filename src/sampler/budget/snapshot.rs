//! What a budget has measured, as plain values for the state file.

use super::meter::Meter;
use super::{Budget, KEYS_MAX, MeterSnapshot, Meters};

/// Everything that the budget of one policy remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetSnapshot {
    /// The name of the policy.
    pub policy: String,
    /// As it is printed; what was measured for another says nothing.
    pub formula: String,
    /// What keys are hashed with.
    pub hash_seed: u64,
    /// When this was taken, by the budget's own clock. It stands while no process runs.
    pub at_ms: u64,
    pub keys: Vec<KeySnapshot>,
    /// Of all that has no place of its own.
    pub rest: KeySnapshot,
}

/// What one key is measured by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySnapshot {
    /// By keyed hash.
    pub key: u64,
    pub at_least: Option<MeterSnapshot>,
    pub at_most: Option<MeterSnapshot>,
}

impl KeySnapshot {
    fn of(key: u64, meters: &Meters) -> Self {
        let snapshot = |meter: &Option<Box<Meter>>| meter.as_deref().map(Meter::snapshot);
        Self { key, at_least: snapshot(&meters.at_least), at_most: snapshot(&meters.at_most) }
    }
}

impl Budget {
    /// Name, formula and seed are for the owner to say.
    pub(in crate::sampler) fn snapshot(&self, now_ms: u64) -> BudgetSnapshot {
        BudgetSnapshot {
            at_ms: self.time(now_ms),
            keys: self.keys.iter().map(|(key, meters)| KeySnapshot::of(*key, meters)).collect(),
            rest: KeySnapshot::of(0, &self.rest),
            ..BudgetSnapshot::default()
        }
    }

    /// Goes on from a snapshot of the same formula: its moment is `now_ms`. Meant for a new one.
    pub(in crate::sampler) fn restore(&mut self, from: &BudgetSnapshot, now_ms: u64) {
        self.shift_ms = from.at_ms.cast_signed().saturating_sub(now_ms.cast_signed());
        for key in from.keys.iter().take(KEYS_MAX) {
            let meters = self.restored(key);
            self.keys.insert(key.key, meters);
        }
        self.rest = self.restored(&from.rest);
    }

    /// What cannot be taken up begins anew.
    fn restored(&self, from: &KeySnapshot) -> Meters {
        let mut meters = self.meters();
        let saved = [(&mut meters.at_least, &from.at_least), (&mut meters.at_most, &from.at_most)];
        for (meter, saved) in saved {
            if let (Some(meter), Some(saved)) = (meter, saved.as_ref().and_then(Meter::restored)) {
                **meter = saved;
            }
        }
        meters
    }
}
