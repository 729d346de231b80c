//! `when_full: lose_oldest`: what is given up is counted, no more and no less.

use std::collections::BTreeMap;
use std::path::Path;

use tailwater::exporter::metrics::Lost;
use tailwater::exporter::outbox::{self, Subscription};
use tailwater::log::GroupItem;
use tailwater::trace::Position;

use crate::plant::Plant;
use crate::wire;
use crate::world::World;

/// Where each exporter stands, and what it has lost to a full outbox so far.
pub type Places = BTreeMap<String, (Position, u64)>;

impl World {
    pub fn places(&self) -> Places {
        let Some(life) = self.life.as_ref().filter(|_| self.plan.lose_oldest) else { return Places::new() };
        let place = |it: &Subscription| {
            let evicted = it.metrics.lost(Lost::Evicted);
            (it.cursor.exporter().to_owned(), (it.cursor.position(), evicted))
        };
        life.instance.outbox().subscriptions().map(place).collect()
    }

    /// The judge has looked: whose place has moved since has lost what lies between and was not settled.
    pub fn check_given_up(&mut self, before: &Places) -> Result<(), String> {
        for (exporter, (after, evicted)) in self.places() {
            let Some((from, known)) = before.get(&exporter) else { continue };
            let miscounted = self.rig.plant == Some(Plant::EvictedMiscounted) && evicted > *known;
            let told = evicted - known - u64::from(miscounted);
            if after == *from && told == 0 {
                continue;
            }
            let (missing, unclear) = self.give_up(&exporter, *from, after);
            // What is damaged cannot be read here either.
            if told != missing && !unclear && !(self.plan.damage && told > missing) {
                return Err(format!(
                    "{exporter} has lost {missing} spans to a full outbox, {told} are counted"
                ));
            }
            self.counts.evicted += told;
        }
        Ok(())
    }

    /// Spans between two places that an exporter has not settled, which it will not get. True: the same span
    /// came more than once and was settled before, so nobody can tell which.
    fn give_up(&mut self, exporter: &str, from: Position, to: Position) -> (u64, bool) {
        let mut ids = Vec::new();
        let mut groups = outbox::recover(self.rig.disk.storage(), Path::new("data"), from);
        while let Ok(Some(item)) = groups.next() {
            let GroupItem::Group(group) = item else { continue };
            if group.at >= to {
                break;
            }
            let pieces = group.records.iter().filter_map(outbox::read_piece);
            ids.extend(pieces.filter_map(|piece| wire::read(&piece.otlp)).flatten().map(|span| span.id));
        }
        let Some(sink) = self.sinks.iter_mut().find(|sink| sink.name == exporter) else {
            self.store.given_up.extend(&ids);
            return (ids.len() as u64, false);
        };
        let repeated = |id: &u64| self.traffic.find(*id).is_none_or(|span| span.sends > 1);
        let unclear = ids.iter().any(|id| repeated(id) && sink.settled.contains_key(id));
        ids.retain(|id| !sink.settled.contains_key(id));
        sink.given_up.extend(&ids);
        (ids.len() as u64, unclear)
    }
}
