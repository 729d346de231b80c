//! What happens in a life: one step of one part of the instance, or of the world around it.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tailwater::config::{Config, Loaded};
use tailwater::exporter::outbox::Kept;
use tailwater::log::{Head, Record, SegmentHeader};
use tailwater::otlp::Outline;
use tailwater::pipeline::Log;
use tailwater::proto::{Piece, TraceState};
use uuid::Uuid;

use crate::backend::{Fate, Mood};
use crate::disk::PATHS;
use crate::model::{Group, Stored};
use crate::plan;
use crate::plant::Plant;
use crate::traffic::{Request, SHOP, TENANTS, Waits};
use crate::wire;
use crate::world::{Life, Pending, World};

/// A sender gives up after so many requests.
const TRIES_MAX: u32 = 5;

/// As the engine marks requests in the input log.
const KIND_REQUEST: u8 = 1;

impl World {
    /// Something happens.
    pub fn event(&mut self) -> Result<(), String> {
        self.pass_time();
        self.index_late();
        match self.random.below(100) {
            0..=9 => self.traffic.begin(
                &mut self.random,
                self.plan.waits,
                self.plan.large(),
                self.now_ms.load(std::sync::atomic::Ordering::Relaxed),
            ),
            10..=34 => self.send(),
            35..=50 => self.write(Log::Input),
            51..=57 => self.write(Log::Outbox),
            58..=69 => self.judge()?,
            70..=76 => self.keep()?,
            77..=82 => self.read_and_launch()?,
            83..=87 => self.answer_one(),
            88..=92 => _ = self.export()?,
            93 => self.append_group()?,
            94 => self.change_moods(),
            95 => self.ail(),
            96 => self.heal(),
            97 => self.reload()?,
            98 if self.random.percent(40) => self.shutdown()?,
            98 if self.random.percent(40) => self.drain()?,
            99 if self.random.percent(40) => self.crash()?,
            _ => {}
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        let waits = self.plan.waits;
        let steps = match self.random.below(200) {
            0..=159 => self.random.between(0, 40),
            160..=194 => self.random.between(50, 300),
            195..=198 => self.random.below(waits.max_wait_ms / 10),
            _ => (waits.hindsight_ms + self.random.below(waits.max_wait_ms * 2)) / 10,
        };
        self.now_ms.fetch_add(10 * steps, std::sync::atomic::Ordering::Relaxed);
    }

    /// A sender sends what it has, or sends again.
    pub fn send(&mut self) {
        let now = self.now();
        let due = self.again.iter().position(|(at, _)| *at <= now);
        let bursts = self.plan.bursts() && due.is_none() && self.random.percent(30);
        let request = match due {
            _ if bursts => Some(self.traffic.burst(&mut self.random, now)),
            Some(at) => {
                self.counts.retries += 1;
                Some(self.again.swap_remove(at).1)
            }
            None => self.traffic.request(&mut self.random, now),
        };
        if let Some(request) = request {
            self.receive(request);
        }
    }

    fn receive(&mut self, mut request: Request) {
        let Some(mut life) = self.life.take() else { return };
        request.tries += 1;
        let now = self.now();
        for name in &request.spans {
            let span = self.traffic.span_mut(*name);
            self.counts.spans_sent += u64::from(span.sends == 0);
            span.sends += 1;
            span.first_begun_ms.get_or_insert(now);
        }
        let late = self.rig.plant == Some(Plant::IndexOutOfOrder) && life.unindexed.is_none();
        let answer = match late && self.random.percent(30) {
            true => store_unindexed(&mut life, TENANTS[request.tenant], &request.body),
            false => Box::pin(life.instance.begin(TENANTS[request.tenant], request.body.clone())),
        };
        let spans = request.spans.clone();
        life.pending.push(Pending { request, answer, received_ms: now });
        let before = life.pending.len();
        self.collect_answers(&mut life);
        for (trace, _) in &spans {
            life.watch.received(&life.instance, &self.traffic, *trace, now);
        }
        let answered = life.pending.len() < before;
        let few = &spans[..spans.len().min(8)];
        self.note(format_args!("request of {} spans: {few:?}, answered: {answered}", spans.len()));
        self.life = Some(life);
    }

    /// Whom the input log's progress concerns is told.
    pub fn collect_answers(&mut self, life: &mut Life) {
        let now = self.now();
        let mut context = Context::from_waker(Waker::noop());
        for mut pending in std::mem::take(&mut life.pending) {
            match pending.answer.as_mut().poll(&mut context) {
                Poll::Pending => life.pending.push(pending),
                Poll::Ready(Ok(_)) => {
                    for name in &pending.request.spans {
                        let span = self.traffic.span_mut(*name);
                        self.counts.spans_acknowledged += u64::from(span.acknowledged.is_none());
                        span.acknowledged.get_or_insert((pending.received_ms, now));
                    }
                }
                Poll::Ready(Err(_)) => {
                    self.counts.refusals += 1;
                    if pending.request.tries < TRIES_MAX {
                        let pause = 10 * self.random.between(1, 300);
                        self.again.push((now + pause, pending.request));
                    }
                }
            }
        }
    }

    pub fn write(&mut self, log: Log) {
        let Some(mut life) = self.life.take() else { return };
        let step = life.instance.write(log);
        self.note(format_args!("{log:?} log: {step:?}"));
        if log == Log::Input {
            self.collect_answers(&mut life);
        }
        self.life = Some(life);
    }

    pub fn judge(&mut self) -> Result<(), String> {
        let now = self.now();
        let (places, slow) = (self.places(), self.slow_traces());
        let Some(life) = &mut self.life else { return Ok(()) };
        life.instance.judge();
        if life.instance.failure().is_some() || self.rig.is_blown() {
            return self.check_given_up(&places);
        }
        let judged = life.watch.judged(&life.instance, &mut self.traffic, &self.plan, now)?;
        let balance = life.instance.engine().ledger.balance();
        let spans: u64 = judged.iter().map(|(_, spans)| u64::from(*spans)).sum();
        *self.pieces.judged.entry(now / 60_000).or_default() += spans;
        let few = &judged[..judged.len().min(8)];
        self.note(format_args!("judged: {} traces, {few:?}, {balance}", judged.len()));
        self.slow_must_leave(&slow, &judged);
        self.remember_learned();
        self.check_given_up(&places)
    }

    pub fn keep(&mut self) -> Result<(), String> {
        let Some(life) = &self.life else { return Ok(()) };
        let kept = life.instance.keep();
        let outcome = kept.as_ref().map_err(|error| format!("{error:#}")).copied();
        self.note(format_args!("state is kept: {outcome:?}"));
        match kept {
            Ok(state) => self.kept(state),
            Err(_) if self.disk_is_ill || self.rig.is_blown() => {
                self.counts.failed_states += 1;
                Ok(())
            }
            Err(error) => Err(format!("the state cannot be kept: {error:#}")),
        }
    }

    fn kept(&mut self, state: bool) -> Result<(), String> {
        let Some(life) = &self.life else { return Ok(()) };
        for subscription in life.instance.outbox().subscriptions() {
            if subscription.cursor.saved() != subscription.cursor.position() {
                return Err(format!("the cursor of {} is not saved", subscription.cursor.exporter()));
            }
        }
        if state {
            self.check_learned_kept()?;
            self.counts.states += 1;
            self.groups_are(Stored::Surely);
        }
        Ok(())
    }

    /// Backends get what is new.
    pub fn read_and_launch(&mut self) -> Result<(), String> {
        let now = self.instant();
        for at in 0..self.sinks.len() {
            if self.random.percent(20) {
                continue;
            }
            let sink = &mut self.sinks[at];
            let Some(exporter) = &mut sink.exporter else { continue };
            let read = match exporter.read(now) {
                Ok(read) => read,
                Err(_) if self.rig.is_blown() || self.disk_is_ill => return Ok(()),
                Err(error) => return Err(format!("the outbox cannot be read: {error}")),
            };
            let mut launched = 0;
            while let Some(request) = sink.exporter.as_mut().and_then(|exporter| exporter.next(now)) {
                sink.launched(&request);
                launched += 1;
            }
            let name = sink.name;
            self.note(format_args!("{name} reads {read} pieces and sends {launched} requests"));
        }
        Ok(())
    }

    /// One request under way meets its fate.
    pub fn answer_one(&mut self) {
        let at = self.random.below(self.sinks.len() as u64) as usize;
        if self.sinks[at].flights.is_empty() {
            return;
        }
        let chosen = self.random.below(self.sinks[at].flights.len() as u64) as usize;
        let fate = self.sinks[at].fate(&mut self.random);
        self.answer(at, chosen, fate);
    }

    pub fn answer(&mut self, at: usize, chosen: usize, fate: Fate) {
        if fate == Fate::Waits {
            return;
        }
        self.counts.backend_failures += u64::from(fate == Fate::Failed);
        self.counts.unanswered += u64::from(fate == Fate::DeliveredUnanswered);
        self.counts.refused_for_good += u64::from(fate == Fate::Refused);
        let now = self.instant();
        let random = self.random.unit();
        let sink = &mut self.sinks[at];
        let flight = sink.flights.remove(chosen);
        let id = flight.id;
        let outcome = sink.meet(flight, fate);
        if let Some(exporter) = &mut sink.exporter {
            exporter.settle(id, outcome, now, random);
        }
        let name = sink.name;
        self.note(format_args!("{name}: request {id} is {fate:?}"));
    }

    /// Pieces of one judgement that are several, as a large trace or a stream has them.
    fn append_group(&mut self) -> Result<(), String> {
        let now = self.now();
        let Some(life) = &mut self.life else { return Ok(()) };
        let count = self.random.between(2, 4) as usize;
        let number = self.traffic.synthetic(&mut self.random, count, now);
        let trace = &self.traffic.traces[number];
        let decided_at_ms = crate::world::BEGIN_MS + now;
        let pieces: Vec<Piece> = trace
            .spans
            .iter()
            .map(|span| Piece {
                trace_id: trace.id.into(),
                policy: "errors".to_owned(),
                decided_at_ms,
                state_after: TraceState::Kept.into(),
                spans: 1,
                otlp: wire::request(SHOP, &[&span.message]).into(),
                ..Piece::default()
            })
            .collect();
        let tenant = TENANTS[trace.tenant];
        let kept: Vec<Kept<'_>> = pieces.iter().map(|piece| Kept { tenant, piece }).collect();
        let appended = life.instance.outbox().try_append_group(&kept, decided_at_ms);
        if appended.is_ok() {
            life.appended += count as u64;
            self.groups.push(Group { trace: number, at_ms: now, stored: Stored::Waits });
            self.counts.groups += 1;
        }
        self.note(format_args!("group {number} of {count}: {}", appended.is_ok()));
        Ok(())
    }

    fn change_moods(&mut self) {
        for sink in &mut self.sinks {
            let good = if self.plan.lose_oldest { 20 } else { 50 };
            sink.mood = if self.random.percent(good) { Mood::Good } else { self.random.pick(&Mood::ALL) };
        }
        self.store.failing = self.random.percent(if self.plan.lose_oldest { 80 } else { 40 });
    }

    /// The disk becomes ill.
    fn ail(&mut self) {
        self.disk_is_ill = true;
        match self.random.below(12) {
            0..=3 => {
                let room = self.random.below(6_000);
                self.rig.disk.set_capacity(Some(self.rig.disk.used() + room));
                self.counts.disk_full += 1;
                self.note(format_args!("the disk has room for {room} bytes"));
            }
            4 | 5 => {
                let path = self.random.pick(&PATHS);
                self.rig.fill(path);
                self.counts.disk_full += 1;
                self.note(format_args!("the disk has no room for {path}"));
            }
            6 | 7 => {
                let (path, reads) =
                    (self.random.pick(&["input", "outbox", "data"]), self.random.between(1, 3));
                self.rig.fail_reads(path, reads as u32);
                self.note(format_args!("{reads} reads of {path} fail"));
            }
            8 | 9 => {
                self.rig.disk.fail_writes(self.random.between(1, 4) as u32);
                self.counts.failing_writes += 1;
                self.note(format_args!("writes fail"));
            }
            _ => {
                self.rig.disk.fail_syncs(1);
                self.note(format_args!("a sync fails"));
            }
        }
    }

    fn reload(&mut self) -> Result<(), String> {
        let share = plan::other_share(&mut self.random);
        let waits = self.other_waits();
        let now = self.now();
        let Some(life) = &mut self.life else { return Ok(()) };
        let mut config = Config { policies: self.plan.policies(share), ..self.config.clone() };
        if self.rig.plant == Some(Plant::ReloadHalf) {
            config.policies = self.config.policies.clone();
        }
        plan::set_waits(&mut config, waits);
        let reloaded = life.instance.reload(Ok(Loaded::from(config)));
        reloaded.map_err(|error| format!("a reload failed: {error}"))?;
        life.watch.reloaded(waits);
        self.waits_changed |= waits != self.plan.waits;
        self.waits = waits;
        self.pieces.in_force.push((now, share));
        self.shares = (self.shares.0.min(share), self.shares.1.max(share));
        self.counts.reloads += 1;
        self.note(format_args!("reload: {share} % of the rest"));
        Ok(())
    }

    fn other_waits(&mut self) -> Waits {
        if !self.plan.other_waits {
            return self.waits;
        }
        Waits {
            after_root_ms: self.random.pick(&[1_000, 2_000, 10_000]),
            max_wait_ms: self.random.pick(&[15_000, 60_000]),
            ..self.plan.waits
        }
    }

    /// A planted fault ends: the record is indexed at last.
    fn index_late(&mut self) {
        let now = self.now();
        let Some(life) = &mut self.life else { return };
        life.unindexed_for = life.unindexed_for.saturating_sub(1);
        if life.unindexed_for == 0
            && let Some(record) = life.unindexed.take()
        {
            let engine = life.instance.engine();
            engine.replay(&record, engine.clock.now(), 0);
            for number in 0..self.traffic.traces.len() {
                life.watch.received(&life.instance, &self.traffic, number, now);
            }
        }
    }
}

type Answer = std::pin::Pin<
    Box<dyn Future<Output = Result<tailwater::receiver::Accepted, tailwater::receiver::Rejection>>>,
>;

/// As an engine would do it that lets go of its order too early: stored and written now, indexed after others.
fn store_unindexed(life: &mut Life, tenant: &str, body: &Bytes) -> Answer {
    let engine = life.instance.engine();
    let arrival_ms = engine.clock.arrival_ms();
    let record = Record { arrival_ms, tenant, kind: KIND_REQUEST, more: false, member: 0, body };
    let head = Head::new(&record).expect("it is small");
    let appended = engine.memory.append_noted(head.as_bytes(), body, Outline::note(body).into(), arrival_ms);
    let writer = engine.input.clone().expect("there is an input log");
    let number = appended.record.at.segment;
    let header = SegmentHeader { number, uuid: Uuid::nil(), opened_ms: arrival_ms, attributes: Bytes::new() };
    let opened = appended.opened.then_some(header);
    writer.append(appended.record.at, opened, appended.record.bytes.clone(), Bytes::new());
    let end = appended.record.end();
    life.unindexed = Some(appended.record);
    life.unindexed_for = 12;
    Box::pin(async move {
        let written = writer.wait(end).await;
        written.map(|()| Default::default()).map_err(|_| tailwater::receiver::Rejection::ShuttingDown)
    })
}
