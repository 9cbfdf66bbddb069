//! The keeper against a model of a disk that crashes: every order is held against the rules.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::breakpoint::record::tests::full_record;

/// What was told to the keeper and what it made durable, by which its orders are judged.
struct Model {
    keeper: Keeper,
    settings: Settings,
    received: u64,
    written: u64,
    fed: u64,
    acknowledged: u64,
    spans: Vec<Span>,
    disk: Vec<Record>,
    in_flight: Option<Record>,
    told: u64,
    begun: bool,
    sequences: Vec<RecordSequence>,
}

fn settings(role: Role, release: Release, rules: Rules) -> Settings {
    let Record { file, boot, job, .. } = full_record();
    let job = Job { role, ..job };
    let (interval, segment_bytes) = (Bytes(100), Bytes::MIB);
    Settings { file, ring: RingSlots::STANDARD, boot, job, interval, segment_bytes, release, rules }
}

/// The stream of every test: the CRC32 of its front tells its length.
fn mark(to: u64) -> Mark {
    Mark { to: StreamOffset(to), crc32: u32::try_from(to).unwrap() }
}

/// What happens to a keeper.
#[derive(Clone, Copy, Debug)]
enum Event {
    Tick,
    Receive(u64),
    /// Spool up to this share of what was received, after leaving out a part where it is a gap.
    Write {
        share: u64,
        gap: bool,
        new_segment: bool,
    },
    Feed(u64),
    Acknowledge(u64),
    Finish,
    Crash,
}

impl Model {
    fn new(settings: Settings) -> Model {
        Model {
            keeper: Keeper::new(settings, RecordSequence::FIRST, Kept::default()),
            settings,
            received: 0,
            written: 0,
            fed: 0,
            acknowledged: 0,
            spans: Vec::new(),
            disk: Vec::new(),
            in_flight: None,
            told: 0,
            begun: false,
            sequences: Vec::new(),
        }
    }

    /// Lets an event happen and judges all that the keeper orders.
    fn happen(&mut self, event: Event) -> Result<(), String> {
        let is_data = matches!(event, Event::Receive(_) | Event::Write { .. } | Event::Feed(_));
        if is_data && !self.begun {
            return Ok(());
        }
        match event {
            Event::Tick => self.say(Input::Tick { wall_clock_ms: 1 }),
            Event::Receive(bytes) => {
                self.received += bytes;
                let next_frame = Sequence(self.received);
                self.say(Input::Received { mark: mark(self.received), next_frame })
            }
            Event::Write { share, gap, new_segment } => self.write(share, gap, new_segment),
            Event::Feed(share) => {
                self.fed += (self.received - self.fed) * share / 100;
                self.say(Input::Fed { to: StreamOffset(self.fed) })
            }
            Event::Acknowledge(share) => {
                self.acknowledged += (self.received - self.acknowledged) * share / 100;
                self.say(Input::PeerAcknowledged(mark(self.acknowledged)))
            }
            Event::Finish => match self.in_flight.take() {
                Some(record) => {
                    self.disk.push(record);
                    self.say(Input::Recorded { sequence: record.sequence })
                }
                None => Ok(()),
            },
            Event::Crash => {
                self.crash();
                Ok(())
            }
        }
    }

    fn write(&mut self, share: u64, gap: bool, new_segment: bool) -> Result<(), String> {
        let room = self.received - self.written;
        // A server spools everything: what it acknowledges has no gaps.
        let gap = gap && self.settings.job.role == Role::Client;
        let low = self.written + if gap { room / 3 } else { 0 };
        let high = low + (self.received - low) * share / 100;
        if high == low {
            return Ok(());
        }
        let last = self.spans.last().map_or(0, |span| span.segment.0);
        let fresh = gap || new_segment || self.spans.is_empty();
        let segment = SegmentNumber(if fresh { last + 1 } else { last });
        let (from, to) = (StreamOffset(low), StreamOffset(high));
        match self.spans.last_mut().filter(|span| span.segment == segment) {
            Some(span) => span.high = to,
            None => self.spans.push(Span { segment, low: from, high: to }),
        }
        self.written = high;
        self.say(Input::Written { from, mark: mark(high), segment })
    }

    fn say(&mut self, input: Input) -> Result<(), String> {
        let mut orders = Vec::new();
        self.keeper.handle(input, &mut orders);
        orders.into_iter().try_for_each(|order| self.judge(order))
    }

    fn judge(&mut self, order: Output) -> Result<(), String> {
        let durable = |back: usize| self.disk.len().checked_sub(back + 1).map(|at| &self.disk[at]);
        let rule = |kept: bool, text: &str| {
            if kept { Ok(()) } else { Err(format!("{text}: {order:?}")) }
        };
        match order {
            Output::WriteRecord(record) => {
                rule(self.in_flight.is_none(), "two records in flight")?;
                rule(!self.sequences.contains(&record.sequence), "a sequence used twice")?;
                rule(record.progress.spooled.0 <= self.written, "record before data")?;
                rule(record.progress.fed.0 <= self.fed, "more fed than was")?;
                rule(record.progress.received.0 <= self.received, "more received than was")?;
                let _encodes = record.encode();
                self.sequences.push(record.sequence);
                self.in_flight = Some(record);
            }
            Output::Begun => {
                rule(!self.begun && durable(0).is_some(), "begun before it was durable")?;
                self.begun = true;
            }
            Output::Acknowledge(mark) => {
                let server = self.settings.job.role == Role::Server;
                rule(server, "only a server acknowledges")?;
                let covered = durable(0).is_some_and(|record| record.progress.acknowledged == mark);
                rule(covered, "acknowledged before durable")?;
                rule(mark.to.0 > self.told, "acknowledged twice")?;
                self.told = mark.to.0;
            }
            Output::Trim { before } => {
                let claims = |record: &Record| {
                    record.progress.spool.is_none_or(|spool| spool.first_segment < before)
                };
                let unclaimed = |back| durable(back).is_some_and(|record| !claims(record));
                rule(unclaimed(0) && unclaimed(1), "trimmed before two records")?;
                let released = match self.settings.release {
                    Release::Never => 0,
                    Release::Fed => self.fed,
                    Release::PeerAcknowledged => self.acknowledged,
                };
                let gone = self.spans.iter().filter(|span| span.segment < before);
                rule(gone.clone().count() > 0, "nothing to trim")?;
                rule(gone.clone().all(|span| span.high.0 <= released), "trimmed what is wanted")?;
                self.spans.retain(|span| span.segment >= before);
            }
            Output::Stated(_) | Output::Retired => return Err(format!("unasked: {order:?}")),
        }
        Ok(())
    }

    /// The process dies with a record half written, and another goes on from the files.
    fn crash(&mut self) {
        let highest = self.sequences.last().copied();
        let next = highest.map_or(RecordSequence::FIRST, RecordSequence::after_crash);
        let said = self.disk.last().map(|record| record.progress);
        self.in_flight = None;
        self.begun = false;
        let spooled = said.map_or(0, |said| said.spooled.0);
        self.written = spooled;
        self.acknowledged = said.map_or(0, |said| said.acknowledged.to.0);
        self.received = spooled.max(self.acknowledged);
        self.fed = 0;
        self.told = 0;
        self.spans = self
            .spans
            .iter()
            .filter(|span| span.low.0 < spooled)
            .map(|span| Span { high: span.high.min(StreamOffset(spooled)), ..*span })
            .collect();
        let kept = Kept {
            written: mark(self.written),
            spans: self.spans.clone(),
            acknowledged: mark(self.acknowledged),
            ..Kept::default()
        };
        self.disk.clear();
        self.keeper = Keeper::new(self.settings, next, kept);
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => Just(Event::Tick),
        4 => (1_u64..300).prop_map(Event::Receive),
        4 => (0_u64..=100, any::<bool>(), any::<bool>())
            .prop_map(|(share, gap, new_segment)| Event::Write { share, gap, new_segment }),
        2 => (0_u64..=100).prop_map(Event::Feed),
        2 => (0_u64..=100).prop_map(Event::Acknowledge),
        5 => Just(Event::Finish),
        1 => Just(Event::Crash),
    ];
    vec(event, 1..120)
}

fn roles() -> impl Strategy<Value = (Role, Release)> {
    prop_oneof![
        Just((Role::Server, Release::Never)),
        Just((Role::Server, Release::Fed)),
        Just((Role::Client, Release::PeerAcknowledged)),
        Just((Role::Client, Release::Never)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_order_of_events_breaks_a_rule((role, release) in roles(), events in events()) {
        let mut model = Model::new(settings(role, release, Rules::KEPT));
        for event in events {
            let judged = model.happen(event);
            prop_assert!(judged.is_ok(), "{event:?}: {judged:?}");
        }
        // Once it is quiet, all is recorded, acknowledged and trimmed that may be.
        for _ in 0..4 {
            for event in [Event::Tick, Event::Finish] {
                let judged = model.happen(event);
                prop_assert!(judged.is_ok(), "{event:?}: {judged:?}");
            }
        }
        let said = model.disk.last().unwrap().progress;
        prop_assert_eq!(said.spooled.0, if model.spans.is_empty() { 0 } else { model.written });
        if role == Role::Server {
            prop_assert_eq!(model.told, model.written);
        }
        let released = match release {
            Release::Never => 0,
            Release::Fed => model.fed,
            Release::PeerAcknowledged => model.acknowledged,
        };
        let left = model.spans.iter().rev().skip(1).filter(|span| span.high.0 <= released);
        prop_assert_eq!(left.count(), 0, "not trimmed: {:?}", model.spans);
    }
}

/// Two segments, the first of them released; every record finished as soon as it is ordered.
fn two_segments(role: Role, release: Release, rules: Rules) -> Result<(), String> {
    let mut model = Model::new(settings(role, release, rules));
    let write = |new_segment| Event::Write { share: 100, gap: false, new_segment };
    let events = [
        Event::Tick,
        Event::Finish,
        Event::Receive(150),
        write(true),
        Event::Finish,
        Event::Receive(150),
        write(true),
        Event::Feed(100),
        Event::Acknowledge(100),
        Event::Finish,
        Event::Tick,
        Event::Finish,
        Event::Finish,
        Event::Receive(300),
        Event::Tick,
    ];
    events.into_iter().try_for_each(|event| model.happen(event))
}

#[test]
fn the_model_notices_each_broken_rule() {
    for (role, release) in [(Role::Server, Release::Fed), (Role::Client, Release::PeerAcknowledged)]
    {
        assert_eq!(two_segments(role, release, Rules::KEPT), Ok(()), "{role:?}");
        for (rule, text) in [
            (Rule::DataBeforeRecord, "record before data"),
            (Rule::RecordTwiceBeforeTrim, "trimmed before two records"),
        ] {
            let noticed = two_segments(role, release, Rules::broken(rule));
            let noticed = noticed.expect_err("unnoticed");
            assert!(noticed.starts_with(text), "{noticed}");
        }
    }
    let broken = Rules::broken(Rule::RecordBeforeAcknowledgement);
    let noticed = two_segments(Role::Server, Release::Never, broken).unwrap_err();
    assert!(noticed.starts_with("acknowledged before durable"), "{noticed}");
}

/// A keeper and the orders that it gave last.
fn begun() -> (Keeper, Vec<Output>) {
    let settings = settings(Role::Server, Release::Never, Rules::KEPT);
    let mut keeper = Keeper::new(settings, RecordSequence::FIRST, Kept::default());
    let mut orders = Vec::new();
    keeper.handle(Input::Tick { wall_clock_ms: 5 }, &mut orders);
    let [Output::WriteRecord(record)] = orders[..] else { panic!("{orders:?}") };
    assert_eq!((record.wall_clock_ms, record.progress), (5, Progress::BEGUN));
    orders.clear();
    keeper.handle(Input::Recorded { sequence: record.sequence }, &mut orders);
    (keeper, orders)
}

#[test]
fn an_epoch_is_durable_before_its_first_byte() {
    assert_eq!(begun().1, [Output::Begun]);
}

#[test]
#[should_panic(expected = "before the epoch is durable")]
fn a_byte_before_the_epoch_is_durable_is_our_own_mistake() {
    let settings = settings(Role::Server, Release::Never, Rules::KEPT);
    let mut keeper = Keeper::new(settings, RecordSequence::FIRST, Kept::default());
    keeper.handle(Input::Fed { to: StreamOffset(0) }, &mut Vec::new());
}

#[test]
fn the_first_error_ends_all_orders() {
    let (mut keeper, mut orders) = begun();
    orders.clear();
    keeper.handle(Input::Failed, &mut orders);
    keeper.handle(Input::Failed, &mut orders);
    keeper.handle(Input::Applied, &mut orders);
    keeper.handle(Input::Tick { wall_clock_ms: 9 }, &mut orders);
    keeper.handle(Input::Recorded { sequence: RecordSequence::FIRST }, &mut orders);
    assert_eq!(orders, [Output::Retired]);
}

#[test]
fn nothing_is_written_while_nothing_is_new() {
    let (mut keeper, mut orders) = begun();
    orders.clear();
    // The second record says the first one's words again only if a segment waits for it.
    for wall_clock_ms in 6..9 {
        keeper.handle(Input::Tick { wall_clock_ms }, &mut orders);
    }
    assert_eq!(orders, []);
}

#[test]
fn a_state_is_recorded_at_once_and_stated_when_it_is_durable() {
    let (mut keeper, mut orders) = begun();
    keeper.handle(Input::Received { mark: mark(10), next_frame: Sequence(1) }, &mut orders);
    orders.clear();
    for (input, state) in [(Input::Ended(mark(10)), State::Ended), (Input::Applied, State::Applied)]
    {
        keeper.handle(input, &mut orders);
        let [Output::WriteRecord(record)] = orders[..] else { panic!("{orders:?}") };
        assert_eq!(record.progress.state, state);
        orders.clear();
        keeper.handle(Input::Recorded { sequence: record.sequence }, &mut orders);
        assert_eq!(orders, [Output::Stated(state)]);
        orders.clear();
    }
}

#[test]
fn a_record_is_due_once_its_interval_has_passed() {
    let (mut keeper, mut orders) = begun();
    orders.clear();
    let next_frame = Sequence(1);
    keeper.handle(Input::Received { mark: mark(500), next_frame }, &mut orders);
    keeper.handle(Input::Fed { to: StreamOffset(99) }, &mut orders);
    assert_eq!(orders, []);
    keeper.handle(Input::Fed { to: StreamOffset(100) }, &mut orders);
    keeper.handle(Input::Fed { to: StreamOffset(300) }, &mut orders);
    let [Output::WriteRecord(record)] = orders[..] else { panic!("{orders:?}") };
    assert_eq!(record.progress.fed, StreamOffset(100), "one record in flight at a time");
    assert!(record.parent.is_some());
}

/// Tells a keeper that has begun of ten bytes, and then of these.
fn tell(inputs: &[Input]) {
    let (mut keeper, mut orders) = begun();
    let received = Input::Received { mark: mark(10), next_frame: Sequence(1) };
    for input in [received].iter().chain(inputs) {
        keeper.handle(*input, &mut orders);
    }
}

#[test]
fn an_end_may_be_known_before_all_has_arrived() {
    tell(&[Input::Ended(mark(20)), Input::Received { mark: mark(20), next_frame: Sequence(2) }]);
}

#[test]
#[should_panic(expected = "is not on the way to the end")]
fn a_stream_that_goes_on_behind_its_end_is_our_own_mistake() {
    tell(&[Input::Ended(mark(20)), Input::Received { mark: mark(21), next_frame: Sequence(2) }]);
}

#[test]
#[should_panic(expected = "is not on the way to the end")]
fn an_end_with_another_crc32_is_our_own_mistake() {
    tell(&[Input::Ended(Mark { crc32: 11, ..mark(10) })]);
}

#[test]
#[should_panic(expected = "a server leaves out bytes")]
fn a_server_that_would_acknowledge_what_it_left_out_is_our_own_mistake() {
    let (from, segment) = (StreamOffset(5), SegmentNumber(1));
    tell(&[Input::Written { from, mark: mark(10), segment }]);
}

#[test]
#[should_panic(expected = "the end moves")]
fn an_end_that_moves_is_our_own_mistake() {
    tell(&[Input::Ended(mark(20)), Input::Ended(mark(21))]);
}

#[test]
#[should_panic(expected = "applied before its end")]
fn a_stream_that_is_applied_before_all_has_arrived_is_our_own_mistake() {
    tell(&[Input::Ended(mark(20)), Input::Applied]);
}

#[test]
fn a_keeper_that_goes_on_records_what_was_kept_and_acknowledges_it() {
    let settings = settings(Role::Server, Release::Never, Rules::KEPT);
    let span = Span { segment: SegmentNumber(2), low: StreamOffset(0), high: StreamOffset(40) };
    let kept = Kept {
        written: mark(40),
        spans: vec![span],
        // More than is left: that was in memory.
        fed: StreamOffset(90),
        ..Kept::default()
    };
    let next = RecordSequence::new(12).unwrap();
    let mut keeper = Keeper::new(settings, next, kept);
    let mut orders = Vec::new();
    keeper.handle(Input::Tick { wall_clock_ms: 1 }, &mut orders);
    let [Output::WriteRecord(record)] = orders[..] else { panic!("{orders:?}") };
    let Record { sequence, parent, progress, .. } = record;
    assert_eq!((sequence, parent), (next, None));
    assert_eq!((progress.received, progress.fed), (StreamOffset(40), StreamOffset(40)));
    orders.clear();
    keeper.handle(Input::Recorded { sequence: next }, &mut orders);
    assert_eq!(orders, [Output::Begun, Output::Acknowledge(mark(40))]);
}
