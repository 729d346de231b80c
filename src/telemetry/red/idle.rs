//! Series that nobody counts any more, such as those of a service that is called otherwise now: where others want room they
//! give their place up.

use std::collections::HashSet;

/// A series that was not counted for so long gives way.
pub(super) const IDLE_MS: u64 = 3_600_000;
/// Time between two looks.
const LOOK_EVERY_MS: u64 = 60_000;

/// When each series was last seen to grow.
#[derive(Debug, Default)]
pub(super) struct Idle {
    looked_ms: u64,
    /// By number.
    watched: Vec<Watched>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    calls: u64,
    grew_ms: u64,
}

impl Idle {
    pub(super) fn is_time(&self, now_ms: u64) -> bool {
        now_ms.abs_diff(self.looked_ms) >= LOOK_EVERY_MS
    }

    /// The numbers are others', whose calls begin at nothing.
    pub(super) fn begin_anew(&mut self, numbers: &HashSet<u32>, now_ms: u64) {
        for number in numbers {
            if let Some(watched) = self.watched.get_mut(*number as usize) {
                *watched = Watched { calls: 0, grew_ms: now_ms };
            }
        }
    }

    /// Looks at the calls of every series; returns the numbers of those that are idle.
    pub(super) fn look(&mut self, calls: &[u64], now_ms: u64) -> HashSet<u32> {
        self.looked_ms = now_ms;
        self.watched.resize(self.watched.len().max(calls.len()), Watched { calls: 0, grew_ms: now_ms });
        let mut idle = HashSet::new();
        for (number, (watched, calls)) in self.watched.iter_mut().zip(calls).enumerate() {
            // A clock that steps back makes nothing older.
            if watched.calls != *calls || watched.grew_ms > now_ms {
                *watched = Watched { calls: *calls, grew_ms: now_ms };
            } else if now_ms - watched.grew_ms >= IDLE_MS {
                idle.insert(number as u32);
            }
        }
        idle
    }
}
