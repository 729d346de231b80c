//! What is learned of durations survives a restart, thresholds included.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use tailwater::pipeline::Simulation;
use tailwater::proto::State;
use tailwater::sampler::{OperationKey, Percentile};

use crate::model::{Group, Stored};
use crate::traffic::{BANK, BANK_NAME};
use crate::world::{BEGIN_MS, World};

/// Looks that are remembered until a state says the same.
const LOOKS_MAX: usize = 40;

/// A sketch but for its name: the number of its window, both windows' buckets, whether it has grown, thresholds.
type Sketch = (u32, [Vec<(u32, u32)>; 2], bool, Vec<(u32, u64)>);

/// By tenant, service and name.
type Sketches = BTreeMap<(String, String, Option<String>), Sketch>;

/// What was learned, by when it was looked at.
#[derive(Debug, Default)]
pub struct Learned {
    looks: Vec<(u64, Sketches)>,
    /// By the state with which a life begins.
    saved: Sketches,
}

fn of_instance(instance: &Simulation) -> Sketches {
    let engine = instance.engine();
    let snapshot = engine.slow.snapshot();
    let wide = |(bucket, count): &(u16, u32)| (u32::from(*bucket), *count);
    let sketches = snapshot.sketches.into_iter().map(|sketch| {
        let windows =
            [sketch.current, sketch.previous].map(|window| window.buckets.iter().map(wide).collect());
        let threshold = |(percentile, duration): &(Percentile, u64)| (percentile.thousandths(), *duration);
        let thresholds = sketch.thresholds.iter().map(threshold).collect();
        let key = (engine.tenant_name(sketch.tenant).to_string(), sketch.service, sketch.name);
        (key, (sketch.window, windows, sketch.grown, thresholds))
    });
    sketches.collect()
}

/// When a state was written, and what it says.
fn of_state(file: &[u8]) -> Option<(u64, Sketches)> {
    let body = file.get(8..)?;
    let crc = u32::from_le_bytes(file[4..8].try_into().ok()?);
    let state = (crc32c::crc32c(body) == crc).then(|| State::decode(body).ok())??;
    let sketches = state.sketches.into_iter().map(|sketch| {
        let windows = [sketch.current, sketch.previous].map(|window| {
            let window = window.unwrap_or_default();
            window.buckets.into_iter().zip(window.counts).collect()
        });
        let thresholds = sketch.thresholds.iter().map(|it| (it.percentile, it.duration_ns)).collect();
        let tenant = state.tenants.get(sketch.tenant as usize).cloned().unwrap_or_default();
        ((tenant, sketch.service, sketch.name), (sketch.window, windows, sketch.grown, thresholds))
    });
    Some((state.written_at_ms, sketches.collect()))
}

impl World {
    /// The judge has looked, and may have taken a snapshot.
    pub fn remember_learned(&mut self) {
        let Some(life) = self.life.as_ref().filter(|_| self.plan.slow) else { return };
        let looks = &mut self.learned.looks;
        if looks.len() == LOOKS_MAX {
            looks.remove(0);
        }
        looks.push((
            BEGIN_MS + self.now_ms.load(std::sync::atomic::Ordering::Relaxed),
            of_instance(&life.instance),
        ));
    }

    /// A state was kept: what it says was true when it was taken.
    pub fn check_learned_kept(&self) -> Result<(), String> {
        let looks = &self.learned.looks;
        let file = self.rig.disk.content(Path::new("data/state")).unwrap_or_default();
        let Some((at_ms, sketches)) = of_state(&file).filter(|_| self.plan.slow) else { return Ok(()) };
        let mut then = looks.iter().filter(|(look_ms, _)| *look_ms == at_ms).peekable();
        if then.peek().is_some() && then.all(|(_, known)| *known != sketches) {
            return Err("the state says other than what was learned".to_owned());
        }
        Ok(())
    }

    /// Before a life begins.
    pub fn read_learned(&mut self) {
        let file = self.rig.disk.content(Path::new("data/state")).filter(|_| self.plan.slow);
        let saved = file.and_then(|file| of_state(&file));
        (self.learned.saved, self.learned.looks) = (saved.unwrap_or_default().1, Vec::new());
    }

    /// A life has begun with what the last has saved. Where memory is short it has judged already.
    pub fn check_learned_restored(&mut self) -> Result<(), String> {
        let Some(life) = self.life.as_ref().filter(|_| self.plan.slow && !self.plan.pressure) else {
            return Ok(());
        };
        let known = of_instance(&life.instance);
        if known != self.learned.saved {
            let (known, saved) = (known.len(), self.learned.saved.len());
            return Err(format!("{known} sketches are known after a start, {saved} were saved"));
        }
        self.counts.sketches_recovered += known.len() as u64;
        Ok(())
    }

    /// Traces that wait for their first judgement and are slow, if it is known what slow is.
    pub fn slow_traces(&self) -> Vec<usize> {
        let Some(life) = self.life.as_ref().filter(|_| self.plan.slow) else { return Vec::new() };
        let engine = life.instance.engine();
        let Ok(tenant) = engine.tenant("") else { return Vec::new() };
        let operation = engine.slow.operation(OperationKey { tenant, service: BANK, name: BANK_NAME });
        let p95 = Percentile::from_thousandths(95_000).expect("a percentile");
        if engine.slow.threshold(operation, p95).is_none() {
            return Vec::new();
        }
        let traces = self.traffic.traces.iter().enumerate();
        traces.filter(|(_, trace)| trace.outlier && !trace.judged).map(|(number, _)| number).collect()
    }

    /// Of those the ones that were judged must leave.
    pub fn slow_must_leave(&mut self, slow: &[usize], judged: &[(usize, u32)]) {
        let at_ms = self.now();
        for (trace, _) in judged.iter().filter(|(number, _)| slow.contains(number)) {
            self.groups.push(Group { trace: *trace, at_ms, stored: Stored::Waits });
            self.counts.slow_traces += 1;
        }
    }
}
