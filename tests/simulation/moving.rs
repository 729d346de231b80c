//! Exporters that are added, removed and renamed between two lives.

use std::path::{Path, PathBuf};

use prost::Message;
use tailwater::log::{Storage, segment};
use tailwater::proto::State;
use tailwater::trace::Position;

use crate::plan;
use crate::plant::{self, Plant};
use crate::world::World;

fn cursor_file(exporter: &str) -> PathBuf {
    Path::new("data").join(format!("cursor.{exporter}"))
}

impl World {
    /// Somebody edits the section of exporters. The first stays.
    pub fn move_exporters(&mut self) {
        if !self.plan.moving || !self.random.percent(35) {
            return;
        }
        let moved = match self.random.below(4) {
            0 | 1 => vec![1], // added or removed
            2 => vec![2],
            _ => vec![1, 2], // renamed, mostly
        };
        moved.into_iter().for_each(|at| self.move_exporter(at));
        let configured = self.sinks.iter().filter(|sink| sink.since_ms.is_some());
        plan::set_sinks(&mut self.config, configured.map(|sink| &sink.name));
    }

    fn move_exporter(&mut self, at: usize) {
        let now = self.now();
        let numbers = segment::numbers(&self.rig.disk, Path::new("data/outbox")).unwrap_or_default();
        let sink = &mut self.sinks[at];
        let name = sink.name;
        match sink.since_ms.take() {
            Some(_) => {
                self.saved.remove(name);
                self.counts.exporters_removed += 1;
            }
            // It is not the same as one that was there from the beginning.
            None => {
                sink.since_ms = Some(now.max(1));
                sink.behind = numbers.last().map_or(0, |(number, _)| *number);
                self.counts.exporters_added += 1;
                if self.rig.plant == Some(Plant::NewFromOldest) {
                    self.rig.disk.put(&cursor_file(name), plant::oldest_cursor(name));
                }
            }
        }
        let added = self.sinks[at].since_ms.is_some();
        self.note(format_args!("exporter {name} is configured: {added}"));
    }

    /// Exporters that the state knows: one that comes back before a state without it goes on where it was.
    /// None: there was no state yet, so nobody knows who is new.
    pub fn known_exporters(&self) -> Option<Vec<String>> {
        let file = self.rig.disk.content(Path::new("data/state"))?;
        let state = State::decode(file.get(8..)?).ok()?;
        Some(state.cursors.into_iter().map(|cursor| cursor.exporter).collect())
    }

    /// A life has begun: who is new stands behind all that was there, and of who is gone nothing is left.
    pub fn check_moved(&mut self, known: Option<&[String]>) -> Result<(), String> {
        let life = self.life.as_ref().filter(|_| self.plan.moving && !self.state_damaged);
        let (Some(life), Some(known)) = (life, known) else { return Ok(()) };
        for sink in &self.sinks {
            let place = life.instance.outbox().subscription(sink.name).map(|it| it.cursor.position());
            match (place, sink.since_ms) {
                (Some(at), Some(1..)) if at <= Position::new(sink.behind, 0) && sink.behind > 0 => {
                    if !known.iter().any(|name| name == sink.name) {
                        return Err(format!("{} is new and begins at {at:?}", sink.name));
                    }
                }
                (Some(_), Some(_)) | (None, None) => {}
                _ => return Err(format!("{} is configured, or is not, and stands at {place:?}", sink.name)),
            }
            if place.is_none() && self.rig.disk.exists(&cursor_file(sink.name)).unwrap_or(true) {
                return Err(format!("{} is gone, and its cursor is there", sink.name));
            }
        }
        Ok(())
    }
}
