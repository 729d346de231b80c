//! `tailwater drain`: all is judged and, as far as backends take it, delivered before the end.

use crate::backend::Fate;
use crate::plant::Plant;
use crate::world::World;

/// Steps until its time is over.
const ROUNDS_MAX: u32 = 12;

impl World {
    /// Nothing is accepted any more; what waits is judged and delivered, and the process ends.
    pub fn drain(&mut self) -> Result<(), String> {
        let Some(mut life) = self.life.take() else { return Ok(()) };
        // What is written is acknowledged before the ports close.
        while life.instance.write(tailwater::pipeline::Log::Input) == tailwater::log::Step::Worked {}
        self.collect_answers(&mut life);
        let places = {
            self.life = Some(life);
            self.places()
        };
        let Some(life) = &mut self.life else { return Ok(()) };
        let drained = match self.rig.plant {
            Some(Plant::DrainForgets) => {
                life.instance.judge();
                Ok(())
            }
            _ => life.instance.drain(),
        };
        life.watch.drained(&mut self.traffic);
        let left = life.instance.engine().buffer.counts().unjudged;
        let failed = life.instance.failure().is_some() || self.rig.is_blown();
        self.note(format_args!("drain: {}, {left} spans are left", drained.is_ok()));
        self.check_given_up(&places)?;
        if failed {
            return Ok(());
        }
        if self.disk_is_ill {
            return self.shutdown();
        }
        drained.map_err(|error| format!("it does not drain: {error:#}"))?;
        if left > 0 {
            return Err(format!("{left} spans wait after a drain"));
        }
        self.counts.drains += 1;
        self.deliver_rest()?;
        self.check()?;
        self.shutdown()
    }

    /// As far as backends take it in time.
    fn deliver_rest(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            self.sinks.iter_mut().filter_map(|sink| sink.exporter.as_mut()).for_each(|it| it.flush());
            self.read_and_launch()?;
            for at in 0..self.sinks.len() {
                let fate = self.sinks[at].fate(&mut self.random);
                if !self.sinks[at].flights.is_empty() && fate != Fate::Waits {
                    self.answer(at, 0, fate);
                }
            }
            self.export()?;
            if self.rig.is_blown() {
                break;
            }
            self.now_ms.fetch_add(200, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }
}
