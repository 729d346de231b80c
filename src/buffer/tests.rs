//! What a trace lives through, on a clock in seconds and with one span a record.

use super::*;
use crate::trace::{PolicyId, Reason, TenantId, Threshold, TraceId, WeightRule};

const SECOND: u64 = 1000;
const SPAN_LEN: u32 = 100;

struct World {
    buffer: Buffer,
    now_ms: u64,
    at: Position,
    charged: i64,
}

/// A trace whose life is watched.
fn trace(n: u8) -> Key {
    Key { trace: TraceId([n; 16]), tenant: TenantId(0) }
}

fn world() -> World {
    let waits = Waits { after_root_ms: 10 * SECOND, max_wait_ms: 60 * SECOND, hindsight_ms: 300 * SECOND };
    let settings = Settings { waits, piece_bytes: 10 * SPAN_LEN, remembered_max: 10, hash_seed: 7 };
    World { buffer: Buffer::new(&settings), now_ms: 0, at: Position::new(1, 100), charged: 0 }
}

impl World {
    fn moment(&self) -> Moment {
        let tick = Tick::from_ms(1_000_000 + self.now_ms);
        Moment {
            now: Now { tick, ms: 1_700_000_000_000 + self.now_ms },
            generation: Generation(1),
            age_ms: 0,
        }
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now_ms = seconds * SECOND;
        self
    }

    fn segment(&mut self, number: u32) -> &mut Self {
        self.at = Position::new(number, 100);
        self
    }

    fn span(&mut self, key: Key) -> Taken {
        self.insert(key, false)
    }

    fn root(&mut self, key: Key) -> Taken {
        self.insert(key, true)
    }

    /// A root that a former life took in.
    fn recovered_root(&mut self, key: Key, age_ms: u64) -> Taken {
        let moment = Moment { age_ms, ..self.moment() };
        self.insert_at(key, true, moment)
    }

    fn insert(&mut self, key: Key, root: bool) -> Taken {
        self.insert_at(key, root, self.moment())
    }

    fn insert_at(&mut self, key: Key, root: bool, moment: Moment) -> Taken {
        let span = Arriving { at: 0, len: SPAN_LEN, bits: 0, start: 1, end: 2, randomness: None };
        let mut batch = Batch::default();
        batch.push(self.buffer.route(key, span), root.then(Root::default));
        let taken = self.buffer.insert(&mut batch, self.at, moment, || ());
        self.at.offset += SPAN_LEN;
        taken
    }

    fn due(&mut self) -> Vec<(usize, Candidate)> {
        let through = self.at;
        self.due_before(through)
    }

    fn due_before(&mut self, through: Position) -> Vec<(usize, Candidate)> {
        let moment = self.moment();
        let of =
            |shard| self.buffer.take_due(shard, moment, through, 100).into_iter().map(move |c| (shard, c));
        (0..SHARDS).flat_map(of).collect()
    }

    /// The only trace that is due.
    fn one_due(&mut self) -> (usize, Candidate) {
        let mut due = self.due();
        assert_eq!(due.len(), 1, "one trace is due");
        due.remove(0)
    }

    fn settle(&mut self, shard: usize, candidate: Candidate, settlement: Settlement) {
        let moment = self.moment();
        self.buffer.settle(shard, [(candidate, settlement, None)].into_iter(), moment, |_, _| ());
    }

    fn keep_due(&mut self) -> Candidate {
        let (shard, candidate) = self.one_due();
        self.settle(shard, candidate.clone(), kept());
        candidate
    }

    fn drop_due(&mut self) -> Candidate {
        let (shard, candidate) = self.one_due();
        self.settle(shard, candidate.clone(), dropped());
        candidate
    }

    /// Judges the only trace that is due by units: those at these places leave by a verdict of their own.
    fn judge_units(&mut self, kept: &[usize]) -> Candidate {
        let (shard, candidate) = self.one_due();
        assert_eq!(candidate.judgement, Judgement::Units);
        let members = self.unsent(shard, &candidate);
        let spans = kept.iter().map(|place| (members[*place].number, By::Verdict(0))).collect();
        let verdicts = if kept.is_empty() { Vec::new() } else { vec![sent()] };
        let leaving = Leaving { verdicts, spans };
        self.settle(shard, candidate.clone(), Settlement::Units(Some(PolicyId(3)), leaving));
        candidate
    }

    /// What has not left, oldest first.
    fn unsent(&self, shard: usize, candidate: &Candidate) -> Vec<Member> {
        let stretch = self.buffer.stretch(shard, candidate, Which::Unsent, None, usize::MAX);
        stretch.members.into_iter().rev().collect()
    }

    fn complete(&self, shard: usize, candidate: &Candidate) -> bool {
        self.buffer.stretch(shard, candidate, Which::All, None, usize::MAX).complete
    }

    fn state(&self, key: Key) -> Option<State> {
        self.buffer.known(key).map(|known| known.state)
    }

    fn nothing_is_due(&mut self) {
        assert_eq!(self.due().len(), 0, "nothing is due");
    }

    fn retire(&mut self, segment: u32) {
        let charged = &mut self.charged;
        self.buffer.retire(segment, |_, bytes| *charged += bytes as i64);
    }
}

fn sent() -> Sent {
    Sent { policy: "errors".into(), threshold: Threshold(0), rule: WeightRule::Threshold }
}

fn kept() -> Settlement {
    Settlement::Kept(sent())
}

fn dropped() -> Settlement {
    Settlement::Dropped(PolicyId(3), Leaving::default())
}

#[test]
fn a_trace_is_judged_whole_after_its_root() {
    let mut world = world();
    world.span(trace(1));
    world.at(3).root(trace(1));
    world.at(8).span(trace(1));
    world.at(12).nothing_is_due();
    let judged = world.at(13).keep_due();
    assert_eq!(judged.judgement, Judgement::Whole);
    assert_eq!((judged.reason, judged.unjudged), (Reason::Root, 3));
}

#[test]
fn a_trace_without_a_root_is_judged_at_the_longest_wait() {
    let mut world = world();
    world.span(trace(1));
    world.at(50).span(trace(1));
    world.at(59).nothing_is_due();
    let judged = world.at(60).judge_units(&[]);
    assert_eq!((judged.reason, judged.unjudged, judged.first), (Reason::Wait, 2, true));
    assert_eq!(world.state(trace(1)), Some(State::Stream));
}

#[test]
fn a_root_in_the_last_second_does_not_extend_the_wait() {
    let mut world = world();
    world.span(trace(1));
    world.at(59).root(trace(1));
    assert_eq!(world.at(60).keep_due().judgement, Judgement::Whole);
    world.at(69).nothing_is_due();
}

#[test]
fn a_late_span_of_a_kept_trace_follows_alone() {
    let mut world = world();
    world.root(trace(1));
    world.at(10).keep_due();
    world.at(40).span(trace(1));
    world.at(45).span(trace(1));
    world.at(49).nothing_is_due();
    let (shard, follower) = world.at(50).one_due();
    assert_eq!((follower.judgement, follower.reason), (Judgement::Follow, Reason::Late));
    assert_eq!(follower.sent, Some(sent()));
    assert_eq!(world.unsent(shard, &follower).len(), 2);
}

#[test]
fn a_late_span_of_a_dropped_trace_has_all_of_it_judged_again() {
    let mut world = world();
    world.span(trace(1));
    world.root(trace(1));
    world.at(10).drop_due();
    world.at(40).span(trace(1));
    let (shard, again) = world.at(50).one_due();
    assert_eq!((again.judgement, again.dropped_by), (Judgement::Again, Some(PolicyId(3))));
    let unsent = world.unsent(shard, &again);
    let new = unsent.iter().filter(|member| member.span.position() >= again.first_unjudged);
    assert_eq!((unsent.len(), new.count(), world.complete(shard, &again)), (3, 1, true));
}

#[test]
fn a_drop_that_stands_keeps_its_time() {
    let mut world = world();
    world.root(trace(1));
    world.at(10).drop_due();
    world.at(290).span(trace(1));
    assert_eq!(world.at(300).drop_due().judgement, Judgement::Again);
    world.at(311).span(trace(1));
    let (shard, judged) = world.at(321).one_due();
    assert_eq!(judged.judgement, Judgement::Units, "the verdict of second 10 is too old");
    assert_eq!(world.unsent(shard, &judged).len(), 3, "what was dropped can be taken along");
}

#[test]
fn a_follower_does_not_renew_the_verdict() {
    let mut world = world();
    world.root(trace(1));
    world.at(10).keep_due();
    world.at(300).span(trace(1));
    world.at(310).keep_due();
    world.at(320).span(trace(1));
    let (shard, judged) = world.at(330).one_due();
    assert_eq!(judged.judgement, Judgement::Units);
    assert_eq!(world.unsent(shard, &judged).len(), 1, "all before it has left");
}

#[test]
fn spans_that_come_while_a_judgement_is_made_reopen_the_trace() {
    let mut world = world();
    world.root(trace(1));
    let (shard, candidate) = world.at(10).one_due();
    world.span(trace(1));
    world.settle(shard, candidate, kept());
    world.at(19).nothing_is_due();
    let (shard, follower) = world.at(20).one_due();
    assert_eq!((follower.judgement, follower.unjudged), (Judgement::Follow, 1));
    assert_eq!(world.unsent(shard, &follower).len(), 1);
}

#[test]
fn spans_beyond_the_snapshot_are_left_for_the_next() {
    let mut world = world();
    world.root(trace(1));
    let through = world.at;
    world.span(trace(1));
    let mut due = world.at(10).due_before(through);
    let (shard, candidate) = due.remove(0);
    assert_eq!(candidate.unjudged, 1);
    assert_eq!(world.unsent(shard, &candidate).len(), 1);
    world.settle(shard, candidate, kept());
    assert_eq!(world.at(20).keep_due().unjudged, 1);
}

#[test]
fn a_trace_of_which_nothing_is_written_yet_waits() {
    let mut world = world();
    let through = world.at;
    world.root(trace(1));
    assert!(world.at(10).due_before(through).is_empty());
    assert_eq!(world.at(11).keep_due().unjudged, 1);
}

#[test]
fn a_full_piece_is_judged_at_once() {
    let mut world = world();
    world.root(trace(1));
    for _ in 0..8 {
        world.span(trace(1));
    }
    world.nothing_is_due();
    world.span(trace(1));
    let (shard, full) = world.one_due();
    assert_eq!((full.reason, full.unjudged), (Reason::Full, 10));
    world.settle(shard, full, kept());
    world.at(1).span(trace(1));
    assert_eq!(world.at(11).keep_due().judgement, Judgement::Follow);
}

#[test]
fn what_a_piece_has_no_room_for_follows_at_once_if_it_fills_another() {
    let mut world = world();
    world.root(trace(1));
    let start = Position { offset: world.at.offset - SPAN_LEN, ..world.at };
    (0..24).for_each(|_| _ = world.span(trace(1)));
    let whole = world.keep_due();
    assert_eq!((whole.reason, whole.judgement, whole.unjudged), (Reason::Full, Judgement::Whole, 10));
    assert_eq!((whole.first_unjudged, world.buffer.counts().unjudged), (start, 15));
    let next = world.keep_due();
    assert_eq!((next.reason, next.judgement, next.unjudged), (Reason::Full, Judgement::Follow, 10));
    world.at(9).nothing_is_due();
    let (shard, rest) = world.at(10).one_due();
    assert_eq!((rest.judgement, world.unsent(shard, &rest).len()), (Judgement::Follow, 5));
}

#[test]
fn a_stream_is_reopened_by_each_span_and_its_root_ends_it() {
    let mut world = world();
    world.span(trace(1));
    world.span(trace(1));
    world.at(60).judge_units(&[0]);
    world.at(900).span(trace(1));
    let message = world.at(910).judge_units(&[]);
    assert_eq!((message.reason, message.first, message.sent), (Reason::Late, false, Some(sent())));
    world.at(5000).root(trace(1));
    let (shard, root) = world.at(5010).one_due();
    assert_eq!((root.judgement, root.divided, root.unjudged), (Judgement::Root, true, 1));
    assert_eq!(world.unsent(shard, &root).len(), 3, "one of four has left");
    world.settle(shard, root, dropped());
    assert_eq!(world.state(trace(1)), Some(State::Dropped));
    world.at(5020).span(trace(1));
    let (shard, again) = world.at(5030).one_due();
    assert_eq!((again.judgement, again.divided), (Judgement::Again, true));
    world.settle(shard, again, kept());
    world.at(5040).span(trace(1));
    let (shard, follower) = world.at(5050).one_due();
    assert_eq!((follower.judgement, world.unsent(shard, &follower).len()), (Judgement::Follow, 1));
}

#[test]
fn a_root_beyond_the_snapshot_waits_for_the_next() {
    let mut world = world();
    world.span(trace(1));
    let through = world.at;
    world.root(trace(1));
    let (shard, units) = world.at(10).due_before(through).remove(0);
    assert_eq!((units.judgement, units.root, units.unjudged), (Judgement::Units, None, 1));
    world.settle(shard, units, Settlement::Units(None, Leaving::default()));
    let (_, root) = world.at(20).one_due();
    assert_eq!((root.judgement, root.unjudged), (Judgement::Root, 1));
    assert_eq!(root.root.map(|(root, _)| root.position()), Some(through));
}

#[test]
fn a_span_names_the_unit_by_which_it_left() {
    let mut world = world();
    (0..3).for_each(|_| _ = world.span(trace(1)));
    let (shard, units) = world.at(60).one_due();
    let members = world.unsent(shard, &units);
    let spans = vec![(members[0].number, By::Verdict(0)), (members[2].number, By::Alone)];
    let leaving = Leaving { verdicts: vec![sent()], spans };
    world.settle(shard, units, Settlement::Units(None, leaving));
    world.at(70).span(trace(1));
    let (shard, next) = world.at(80).one_due();
    let verdicts = world.buffer.sent_units(shard, &next);
    let stretch = world.buffer.stretch(shard, &next, Which::All, None, usize::MAX);
    let marks: Vec<Mark> = stretch.members.iter().rev().map(|member| member.span.mark()).collect();
    let Mark::Unit(number) = marks[0] else { panic!("it left by a verdict: {marks:?}") };
    assert_eq!(number.of(&verdicts).map(|unit| &unit.sent), Some(&sent()));
    assert_eq!(marks[1..], [Mark::None, Mark::Alone, Mark::None]);
    let left = vec![(stretch.members[0].number, By::Unit(number))];
    world.settle(shard, next, Settlement::Units(None, Leaving { verdicts: vec![], spans: left }));
    let known = world.buffer.known(trace(1)).unwrap();
    assert_eq!((known.state, known.units.len()), (State::Stream, 1), "a follower adds no verdict");
}

#[test]
fn what_a_stream_owns_is_charged_and_leaves_with_its_segment() {
    let mut world = world();
    world.span(trace(1));
    let (shard, units) = world.at(60).one_due();
    let number = world.unsent(shard, &units)[0].number;
    let leaving = Leaving { verdicts: vec![sent()], spans: vec![(number, By::Verdict(0))] };
    let mut charged = 0;
    let verdict = (units, Settlement::Units(None, leaving), None);
    let moment = world.moment();
    world.buffer.settle(shard, [verdict].into_iter(), moment, |_, bytes| charged += bytes);
    assert!(charged >= size_of::<SentUnit>() + size_of::<Sent>(), "{charged} bytes");
    world.at(70).segment(2).span(trace(1));
    world.at(80).judge_units(&[]);
    world.retire(1);
    assert_eq!(world.charged as usize, TRACE_BYTES + charged, "the later segment pays for both");
}

#[test]
fn a_stream_of_which_a_unit_was_kept_is_remembered() {
    let mut world = world();
    world.span(trace(1));
    world.span(trace(2));
    for (shard, units) in world.at(60).due() {
        let number = world.unsent(shard, &units)[0].number;
        let leaving = match units.key == trace(1) {
            true => Leaving { verdicts: vec![sent()], spans: vec![(number, By::Verdict(0))] },
            false => Leaving::default(),
        };
        world.settle(shard, units, Settlement::Units(None, leaving));
    }
    world.retire(1);
    world.at(4000).segment(2).span(trace(1));
    world.span(trace(2));
    assert_eq!(world.state(trace(1)), Some(State::Stream));
    assert_eq!(world.state(trace(2)), Some(State::Open));
    let units = world.at(4010).judge_units(&[]);
    assert_eq!((units.key, units.first, units.sent), (trace(1), false, Some(sent())));
}

#[test]
fn a_kept_trace_becomes_a_stream_that_has_kept_a_unit() {
    let mut world = world();
    world.root(trace(1));
    world.at(10).keep_due();
    world.at(400).span(trace(1));
    let (shard, units) = world.at(410).one_due();
    assert_eq!((units.judgement, units.sent.as_ref()), (Judgement::Units, Some(&sent())));
    let all = world.buffer.stretch(shard, &units, Which::All, None, usize::MAX);
    let marks: Vec<Mark> = all.members.iter().map(|member| member.span.mark()).collect();
    assert_eq!(marks, [Mark::None, Mark::Alone], "nothing follows what left so long ago");
    world.settle(shard, units, Settlement::Units(Some(PolicyId(3)), Leaving::default()));
    world.retire(1);
    world.at(500).segment(2).span(trace(1));
    assert_eq!(world.state(trace(1)), Some(State::Stream));
}

#[test]
fn what_a_restart_must_know_of_a_stream_is_listed() {
    let mut world = world();
    world.span(trace(1));
    world.span(trace(2));
    world.root(trace(3));
    let through = world.at;
    for (shard, candidate) in world.at(60).due() {
        let number = world.unsent(shard, &candidate)[0].number;
        let leaving = Leaving { verdicts: vec![sent()], spans: vec![(number, By::Verdict(0))] };
        let settlement = match candidate.judgement {
            Judgement::Units if candidate.key == trace(1) => Settlement::Units(None, leaving),
            Judgement::Units => Settlement::Units(Some(PolicyId(3)), Leaving::default()),
            _ => dropped(),
        };
        world.settle(shard, candidate, settlement);
    }
    let mut listed = Vec::new();
    world.buffer.kept(|kept| listed.push(kept));
    listed.sort_by_key(|kept| kept.key.trace);
    let keys: Vec<Key> = listed.iter().map(|kept| kept.key).collect();
    assert_eq!(keys, [trace(1), trace(2)], "a dropped trace leaves nothing");
    assert!(listed.iter().all(|kept| (kept.state, kept.through) == (State::Stream, through)));
    assert_eq!((listed[0].units.len(), &listed[1].sent), (1, &None));
}

#[test]
fn memory_never_makes_a_trace_be_judged_younger_than_after_root() {
    let mut world = world();
    world.span(trace(1));
    world.at(4).segment(2).span(trace(2));
    assert_eq!(world.buffer.retirable_in_ms(1, world.moment().now), 6 * SECOND);
    world.at(10);
    assert_eq!(world.buffer.retirable_in_ms(1, world.moment().now), 0);
    let moment = world.moment();
    let taken = |shard| world.buffer.take_listed(shard, 1, moment, Position::MAX);
    let taken: Vec<Candidate> = (0..SHARDS).flat_map(taken).collect();
    assert_eq!(taken.len(), 1, "what waits in later segments stays");
    assert_eq!((taken[0].key, taken[0].reason), (trace(1), Reason::Pressure));
}

#[test]
fn a_trace_lives_as_long_as_one_of_its_spans() {
    let mut world = world();
    world.root(trace(1));
    world.at(10).drop_due();
    world.at(20).segment(2).span(trace(1));
    world.at(30).drop_due();
    world.retire(1);
    assert_eq!(world.buffer.counts(), Counts { traces: 1, spans: 1, unjudged: 0 });
    assert_eq!(world.charged, TRACE_BYTES as i64, "the entry is charged to the later segment");
    world.at(31).segment(3).span(trace(1));
    let (shard, again) = world.at(41).one_due();
    assert!(!world.complete(shard, &again));
    world.settle(shard, again, dropped());
    world.retire(3);
    assert_eq!(world.buffer.counts(), Counts::default());
}

#[test]
fn traces_that_move_to_later_segments_are_judged_before_those_retire() {
    let mut world = world();
    let shard = |key| split(world.buffer.hasher.hash_one(key)).0;
    let (far, near) = (trace(1), (2..).map(trace).find(|key| shard(*key) == shard(trace(1))).unwrap());
    world.root(far);
    world.root(near);
    for (shard, candidate) in world.at(10).due() {
        world.settle(shard, candidate, dropped());
    }
    world.at(20).segment(3).span(near);
    world.segment(5).span(far);
    world.retire(1);
    let moment = world.at(30).moment();
    let listed = |shard| world.buffer.take_listed(shard, 3, moment, Position::MAX);
    let listed: Vec<Candidate> = (0..SHARDS).flat_map(listed).collect();
    assert_eq!(listed.iter().map(|candidate| candidate.key).collect::<Vec<_>>(), [near]);
    world.settle(split(world.buffer.hasher.hash_one(near)).0, listed[0].clone(), kept());
    world.retire(3);
    assert_eq!(world.buffer.counts(), Counts { traces: 1, spans: 1, unjudged: 1 });
}

#[test]
fn a_kept_trace_is_remembered_when_it_has_left_the_log() {
    let mut world = world();
    world.root(trace(1));
    world.at(10).keep_due();
    world.retire(1);
    assert_eq!(world.buffer.counts(), Counts::default());
    world.at(100).segment(2).span(trace(1));
    assert_eq!(world.at(110).keep_due().judgement, Judgement::Follow);
}

#[test]
fn a_dropped_trace_is_forgotten() {
    let mut world = world();
    world.root(trace(1));
    world.at(10).drop_due();
    world.retire(1);
    world.at(20).segment(2).span(trace(1));
    world.at(79).nothing_is_due();
    world.at(80).judge_units(&[]);
}

#[test]
fn what_an_earlier_life_has_sent_is_skipped() {
    let mut world = world();
    let through = Position::new(1, 200);
    let sent = Some(sent());
    let units = Box::default();
    let kept = Remembered { key: trace(1), state: State::Kept, sent, units, judged_ms: 0, through };
    world.buffer.remember(Remembered { judged_ms: world.moment().now.ms, ..kept });
    assert_eq!(world.span(trace(1)), Taken { traces: 1, skipped: 1, ..Taken::default() });
    assert_eq!(world.span(trace(1)), Taken { spans: 1, late: 1, ..Taken::default() });
    assert_eq!(world.at(10).keep_due().judgement, Judgement::Follow);
}

#[test]
fn pressure_leaves_a_recovered_trace_its_time_for_stragglers() {
    let mut world = world();
    world.at(100).recovered_root(trace(1), 60 * SECOND);
    let retirable_in_s = |world: &World| world.buffer.retirable_in_ms(1, world.moment().now) / SECOND;
    assert_eq!(retirable_in_s(&world), 10);
    assert!(world.at(109).due().is_empty());
    assert_eq!(retirable_in_s(&world), 1);
    assert_eq!(world.at(110).due().len(), 1);
}

#[test]
fn the_low_water_is_the_oldest_span_that_is_still_to_be_judged() {
    let mut world = world();
    let first = world.at;
    world.root(trace(1));
    let second = world.at;
    world.span(trace(2));
    assert_eq!(world.buffer.low_water(), Some(first));
    world.at(10).keep_due();
    assert_eq!(world.buffer.low_water(), Some(second));
    world.at(60).judge_units(&[]);
    assert_eq!(world.buffer.low_water(), None);
    let late = world.at;
    world.span(trace(1));
    assert_eq!(world.buffer.low_water(), Some(late));
}

#[test]
fn kept_traces_are_listed_live_or_remembered() {
    let mut world = world();
    world.root(trace(1));
    world.at(10).keep_due();
    world.segment(2).root(trace(2));
    world.at(20).keep_due();
    world.at(21).root(trace(3));
    world.at(31).drop_due();
    world.retire(1);
    let mut listed = Vec::new();
    world.buffer.kept(|kept| listed.push(kept.key));
    listed.sort_by_key(|key| key.trace);
    assert_eq!(listed, [trace(1), trace(2)]);
}

#[test]
fn a_trace_that_waits_anew_is_listed_with_what_it_has_sent() {
    let mut world = world();
    world.root(trace(1));
    let through = world.at;
    world.at(10).keep_due();
    world.at(400).span(trace(1));
    let mut listed = Vec::new();
    world.buffer.kept(|kept| listed.push((kept.state, kept.through)));
    assert_eq!(listed, [(State::Stream, through)]);
    world.at(460).drop_due();
    world.buffer.kept(|kept| listed.push((kept.state, kept.through)));
    assert_eq!(listed.len(), 2, "the root is not sent again, though the last verdict was a drop");
}

#[test]
fn the_first_root_by_position_is_the_root() {
    let mut world = world();
    world.span(trace(1));
    let first = world.at;
    world.root(trace(1));
    world.root(trace(1));
    assert_eq!(world.at(10).keep_due().root.map(|(root, _)| root.position()), Some(first));
}

#[test]
fn no_request_overtakes_another_in_any_shard() {
    let world = world();
    let order = Mutex::new(100_u32);
    let moment = world.moment();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (world, order) = (&world, &order);
            scope.spawn(move || {
                let mut batch = Batch::default();
                for n in 0..200_u8 {
                    batch.clear();
                    for id in 0..32_u8 {
                        let key = Key {
                            trace: TraceId([thread, n, id, 1].repeat(4).try_into().unwrap()),
                            tenant: TenantId(0),
                        };
                        let span = Arriving { at: 0, len: 1, bits: 0, start: 0, end: 0, randomness: None };
                        batch.push(world.buffer.route(key, span), None);
                    }
                    let mut next = order.lock();
                    *next += 10;
                    let body = Position::new(1, *next);
                    world.buffer.insert(&mut batch, body, moment, || drop(next));
                }
            });
        }
    });
    for shard in 0..SHARDS {
        assert!(world.buffer.shard(shard).in_order(), "shard {shard} is in the order of the log");
    }
    assert_eq!(world.buffer.counts().spans, 4 * 200 * 32);
}

/// At 8 spans of 690 bytes a trace, the index is 7 % of the log.
const _: () = assert!(TRACE_BYTES <= 236 && SPAN_BYTES == 16);
