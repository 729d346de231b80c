//! What must hold after every event, after every start, and the way to the end of a run.

use tailwater::exporter::metrics::Lost;
use tailwater::exporter::outbox::Subscription;
use tailwater::log::segment;
use tailwater::pipeline::Log;
use tailwater::telemetry::ledger;

use crate::backend::Fate;
use crate::count::Counts;
use crate::wire::Seen;
use crate::world::{World, in_use};

/// Beyond the disk's budget: what was accepted before it was looked at.
const DISK_SLACK: u64 = 64 << 10;
/// Rounds after which everything must have been judged and delivered.
const ROUNDS_MAX: u32 = 60;

impl World {
    pub fn check(&mut self) -> Result<(), String> {
        let Some(life) = &self.life else { return Ok(()) };
        let balance = life.instance.engine().ledger.balance();
        if !balance.balances() {
            return Err(format!("the ledger does not balance: {balance}"));
        }
        let waiting = life.instance.engine().buffer.counts().unjudged;
        if waiting != balance.buffered {
            return Err(format!(
                "{} spans are buffered, and {waiting} wait for a judgement",
                balance.buffered
            ));
        }
        let (used, limit) = life.instance.memory();
        if used > limit {
            return Err(format!("{used} bytes of memory are used of {limit}"));
        }
        for subscription in life.instance.outbox().subscriptions() {
            let metrics = &subscription.metrics;
            let came = metrics.pending_at_start() + balance.kept + life.appended + metrics.repeated();
            let lost: u64 = Lost::ALL.iter().map(|cause| metrics.lost(*cause)).sum();
            let went = metrics.delivered() + metrics.pending().spans + lost;
            if came != went {
                let exporter = subscription.cursor.exporter();
                return Err(format!("the book of {exporter} does not balance: {came} came, {went} went"));
            }
            self.check_told(subscription)?;
        }
        // An exporter that comes back where an old state saw it misses what was deleted meanwhile.
        if !self.plan.damage && !self.plan.power && !self.plan.moving {
            let corrupt = life.instance.engine().ledger.lost_bytes_by_cause();
            if let Some((_, bytes)) = corrupt.iter().find(|(cause, n)| *cause == ledger::CORRUPT && *n > 0) {
                return Err(format!("{bytes} bytes are called corrupt, and nothing was damaged"));
            }
        }
        if self.counts.events.is_multiple_of(8) {
            self.check_disk()?;
        }
        self.check_numbers()?;
        self.check_news()
    }

    /// What an exporter says of itself is what its backend says.
    fn check_told(&self, subscription: &Subscription) -> Result<(), String> {
        let (metrics, exporter) = (&subscription.metrics, subscription.cursor.exporter());
        let corrupt = metrics.lost(Lost::Corrupt);
        if corrupt > 0 && !self.plan.damage && !self.plan.power && !self.plan.moving {
            return Err(format!("{exporter} says that {corrupt} spans are corrupt, and nothing was damaged"));
        }
        let Some(sink) = self.sinks.iter().find(|sink| sink.name == exporter) else { return Ok(()) };
        let says = (metrics.delivered(), metrics.lost(Lost::Rejected));
        // What was given up while it was under way is not counted again.
        let fits =
            says == sink.told || (self.plan.lose_oldest && says.0 <= sink.told.0 && says.1 <= sink.told.1);
        if !fits {
            return Err(format!(
                "{exporter} says delivered and refused: {says:?}, it was told {:?}",
                sink.told
            ));
        }
        Ok(())
    }

    fn check_disk(&self) -> Result<(), String> {
        let on_disk = self.rig.disk.used();
        if on_disk > self.plan.disk_bytes + DISK_SLACK {
            return Err(format!("{on_disk} bytes of disk are used of {}", self.plan.disk_bytes));
        }
        Ok(())
    }

    /// No segment is begun whose number was in use in an earlier life.
    fn check_numbers(&mut self) -> Result<(), String> {
        // The file of an exporter that was taken away says nothing, should a loss of power bring it back.
        let settled = self.saved.values().map(|saved| in_use(*saved)).max().unwrap_or_default();
        for path in self.rig.created() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(number) = segment::number_of(name) else { continue };
            let floor = match path.parent().and_then(|dir| dir.file_name()) {
                Some(dir) if dir == "input" => self.floor,
                Some(dir) if dir == "outbox" => settled,
                _ => continue,
            };
            if number <= floor {
                return Err(format!("{} was in use before", path.display()));
            }
        }
        Ok(())
    }

    /// What came to backends is what was sent.
    fn check_news(&mut self) -> Result<(), String> {
        for at in 0..self.sinks.len() {
            for seen in std::mem::take(&mut self.sinks[at].news) {
                self.recognise(seen.ok_or("a backend got what is no OTLP")?)?;
            }
            let twice = self.sinks[at].this_life.iter().find(|(id, (taken, unanswered))| {
                let sends = self.traffic.find(**id).map_or(0, |span| span.sends);
                let damaged =
                    self.traffic.traces.get((**id >> 12) as usize).is_some_and(|trace| trace.damaged);
                *taken > sends + unanswered && !damaged && !self.state_damaged
            });
            if let Some((id, (taken, _))) = twice {
                return Err(format!("span {id:x} came {taken} times in one life"));
            }
        }
        Ok(())
    }

    /// A span that came out is one that was sent, byte for byte but for its trace state.
    pub fn recognise(&self, seen: Seen) -> Result<(), String> {
        match self.traffic.find(seen.id) {
            Some(span) if span.hash == seen.hash => Ok(()),
            Some(span) => Err(format!("span {:x} left other than it came", span.id)),
            None => Err(format!("span {:x} was never sent", seen.id)),
        }
    }

    /// A cursor never goes back behind what was saved.
    pub fn check_start(&mut self) -> Result<(), String> {
        let Some(life) = &self.life else { return Ok(()) };
        for subscription in life.instance.outbox().subscriptions() {
            let (name, position) = (subscription.cursor.exporter(), subscription.cursor.position());
            if let Some(saved) = self.saved.get(name).filter(|saved| **saved > position) {
                return Err(format!("the cursor of {name} went back from {saved:?} to {position:?}"));
            }
        }
        self.check()
    }

    /// A run is worth its name.
    pub fn check_run(&self) -> Result<(), String> {
        let exporters = 1 + self.sinks.iter().filter(|sink| sink.since_ms.is_some()).count();
        let Counts { events, .. } = self.counts;
        let crashes = self.counts.crashes();
        match (events, crashes, exporters) {
            (200.., 2.., 2..) => Ok(()),
            _ => Err(format!("a run of {events} events, {crashes} crashes, {exporters} exporters")),
        }
    }

    /// Everything is well again: what waits is judged and delivered.
    pub fn settle(&mut self) -> Result<(), String> {
        self.heal();
        self.store.failing = false;
        self.sinks.iter_mut().for_each(|sink| sink.mood = crate::backend::Mood::Good);
        if self.life.is_none() {
            self.start(false)?;
        }
        self.rig.arm(None);
        self.note(format_args!("settling"));
        self.again.clear();
        for _ in 0..ROUNDS_MAX {
            if self.round()? {
                return self.shutdown();
            }
        }
        let outbox = self.life.iter().flat_map(|life| life.instance.outbox().subscriptions());
        let pending: Vec<_> = outbox
            .map(|at| (at.cursor.exporter(), at.cursor.position(), at.metrics.pending().spans))
            .filter(|(.., spans)| *spans > 0)
            .collect();
        Err(format!("what waits is not judged and delivered in time: {pending:?}"))
    }

    /// A while passes in which every part has its turn. True: nothing is left.
    fn round(&mut self) -> Result<bool, String> {
        let pause = self.plan.waits.after_root_ms;
        self.now_ms.fetch_add(pause, std::sync::atomic::Ordering::Relaxed);
        (0..3).for_each(|_| self.write(Log::Input));
        self.judge()?;
        let Some(life) = &self.life else { return Ok(false) };
        let waiting = life.instance.engine().buffer.counts().unjudged;
        life.instance.outbox().log().seal();
        (0..3).for_each(|_| self.write(Log::Outbox));
        self.keep()?;
        self.deliver()?;
        while self.export()? {
            self.check()?;
        }
        self.check()?;
        let Some(life) = &self.life else { return Ok(false) };
        let mut books = life.instance.outbox().subscriptions().map(|at| at.metrics.pending().spans);
        Ok(waiting == 0 && books.all(|pending| pending == 0))
    }

    fn deliver(&mut self) -> Result<(), String> {
        for _ in 0..4 {
            self.read_and_launch()?;
            for at in 0..self.sinks.len() {
                while !self.sinks[at].flights.is_empty() {
                    self.answer(at, 0, Fate::Delivered);
                }
            }
            self.now_ms.fetch_add(400, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }
}
