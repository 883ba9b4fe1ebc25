//! Random commands, valid and invalid, and what holds after each of them.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::super::aggregations::Aggregation;
use super::super::members::MemberState;
use super::super::segments::SegmentState;
use super::super::windows::Completeness;
use super::*;

/// The numbers that a command is made of; which of them are used depends on the first.
type Step = [u8; 6];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), 1..200)
}

/// A command that fits the facts more often than not.
fn command(facts: &Facts, step: Step) -> Command {
    let [kind, a, b, c, d, odd] = step;
    // One time in eight, something in the command is wrong.
    let off = u64::from(odd.is_multiple_of(8));
    let node = some_node(facts, a);
    match kind % 32 {
        0 => join(u128::from(facts.members.last.0 + 1 - off)),
        1..=3 => Command::Activate { node },
        4 => Command::Drain { node },
        5 => Command::Drained { node: some_draining(facts).unwrap_or(node) },
        6 => Command::Forget { node: some_writer(facts, b).unwrap_or(node) },
        7..=9 => {
            let other = some_node(facts, b);
            let copies = if c.is_multiple_of(2) { vec![node] } else { vec![other, node] };
            Command::OpenSegment { writer: node, copies }
        }
        10..=13 => seal_step(facts, a, b, c, off),
        14 if d.is_multiple_of(2) => filled_step(facts, a, b, off),
        14 => Command::Hold { segment: some_segment(facts, b), node },
        15..=18 => cut_step(facts, [a, b, c, d], off),
        19 | 20 => place_step(facts, a, b, c, off),
        21 if d.is_multiple_of(8) => Command::Throttle { seconds: a.into() },
        21 if d.is_multiple_of(8) => {
            let definitions =
                ["a", "files"].map(|name| (name.to_owned(), json!({ "type": "LogFiles" })));
            Command::Register { definitions: definitions.into() }
        }
        21 => register(match a % 4 {
            0 => &["a"],
            1 => &["a", "b"],
            _ => &["by-foo"],
        }),
        22 => Command::Aware {
            segment: some_segment(facts, b),
            below: facts.next_aggregation().saturating_sub(off as u32),
            from: at(facts.latest_cut().time.0 / SECOND + u64::from(c % 3)),
        },
        23..=25 => claim_step(facts, [a, b, c, d], off),
        26..=28 => complete_step(facts, a, b, off),
        29 if d.is_multiple_of(4) => lose_step(facts, a, b, c, off),
        29 => carry_step(facts, a, b, c, off),
        _ => print_step(facts, a, b, c, off),
    }
}

/// One of the newest nodes, or one that is yet to come.
fn some_node(facts: &Facts, choice: u8) -> NodeId {
    NodeId((facts.members.last.0 + 1).saturating_sub(u64::from(choice / 2 % 8)))
}

fn some_draining(facts: &Facts) -> Option<NodeId> {
    let mut members = facts.members.known.iter();
    members.find(|(_, member)| member.state == MemberState::Draining).map(|(&node, _)| node)
}

fn some_writer(facts: &Facts, choice: u8) -> Option<NodeId> {
    facts.segments.known.get(&some_segment(facts, choice)).map(|segment| segment.writer)
}

fn some_segment(facts: &Facts, choice: u8) -> SegmentId {
    (facts.segments.last + u64::from(choice % 8 == 7)).saturating_sub(u64::from(choice % 4))
}

fn some_aggregation(facts: &Facts, choice: u8) -> u32 {
    facts.aggregations.next.saturating_sub(1 + u32::from(choice % 3))
}

/// A window of five seconds not long ago.
fn some_window(facts: &Facts, choice: u8) -> Window {
    let newest = facts.latest_cut().time.0 / (5 * SECOND);
    let start = newest.saturating_sub(1 + u64::from(choice % 4)) * 5;
    window(start, start + 5)
}

fn seal_step(facts: &Facts, a: u8, b: u8, c: u8, off: u64) -> Command {
    let segment = some_segment(facts, b);
    let now = facts.latest_cut().time.0 / SECOND;
    if c.is_multiple_of(3) {
        return Command::BeginSeal { segment, ceiling: at(now + u64::from(a % 8)) };
    }
    let latest = facts.latest_cut();
    let entries = (latest.count(segment).entries + u64::from(a % 3)).saturating_sub(off);
    let known = facts.segments.known.get(&segment);
    let copies = known.map_or(Vec::new(), |known| known.copies.clone());
    let holders = copies.into_iter().take(1 + usize::from(a % 2)).collect();
    // The last entry is stamped as late as it can be, or just after what was counted.
    let ceiling = known.map_or(UnixNanos(0), |known| known.ceiling);
    let counted = known.map_or(UnixNanos(0), |known| latest.known(segment, known));
    let until = if b.is_multiple_of(2) { ceiling } else { UnixNanos(counted.0 + 1) };
    Command::Seal { segment, end: extent(entries), until, holders }
}

fn cut_step(facts: &Facts, [a, b, c, d]: [u8; 4], off: u64) -> Command {
    let latest = facts.latest_cut();
    let later = if d == 0 { 1800 } else { 1 + u64::from(a % 4) - off };
    let segments = facts.segments.known.iter();
    let told = segments.enumerate().filter(|(n, _)| b >> (n % 8) & 3 != 0);
    let stamped = told.map(|(_, (&id, segment))| {
        let entries = latest.count(id).entries + u64::from(c % 8);
        let told = match segment.end() {
            Some(end) => entries.min(end.entries + off),
            None => entries.saturating_sub(off * u64::from(a % 8)),
        };
        (id, extent(told))
    });
    Command::Cut {
        number: latest.number + 1 + off * u64::from(c % 3),
        time: UnixNanos(latest.time.0 + later * SECOND),
        stamped: stamped.collect(),
    }
}

fn place_step(facts: &Facts, a: u8, b: u8, c: u8, off: u64) -> Command {
    let slot = a % 2 + u8::from(off == 1 && b.is_multiple_of(2));
    let epoch = facts.slots.get(&slot).map_or(0, |ownership| ownership.epoch) + off;
    let mut owners = vec![some_node(facts, b)];
    if c.is_multiple_of(2) {
        owners.push(some_node(facts, c));
    }
    let copied = facts.latest_cut().number.saturating_sub(u64::from(c % 4));
    let mut wanted = Vec::new();
    if b.is_multiple_of(2) {
        wanted.extend([some_node(facts, b / 2), some_node(facts, c / 2)]);
    }
    Command::Place { changes: [(slot, Change { epoch, owners, copied, wanted })].into() }
}

/// A node that fills a slot, if there is one, has done so.
fn filled_step(facts: &Facts, a: u8, b: u8, off: u64) -> Command {
    let slot = a % 2;
    let filling = facts.slots.get(&slot).and_then(|ownership| ownership.filling.iter().next());
    let (node, since) = filling.map_or((some_node(facts, b), 1), |(&node, &since)| (node, since));
    // What it has of files is out of date one time in eight.
    let rebuilding = facts.aggregations().iter().filter(|(_, known)| known.takes_chunks());
    let has = |(&number, known): (&u32, &Aggregation)| {
        (number, [(slot, known.progress(slot).number().saturating_sub(off))].into())
    };
    let files = rebuilding.map(has).collect();
    Command::Filled { node, slots: [(slot, since + u64::from(b.is_multiple_of(8)))].into(), files }
}

fn primary(facts: &Facts, slot: Slot) -> (NodeId, u64) {
    let ownership = facts.slots.get(&slot).cloned().unwrap_or_default();
    (ownership.owners.first().copied().unwrap_or_default(), ownership.epoch)
}

fn claim_step(facts: &Facts, [a, b, c, d]: [u8; 4], off: u64) -> Command {
    let (slot, aggregation) = (a % 2, some_aggregation(facts, b));
    let (node, epoch) = primary(facts, slot);
    let known = facts.aggregations.known.get(&aggregation);
    let number = known.map_or(0, |known| known.progress(slot).number()) + 1 + off;
    let (records, distinct, digest) = (u64::from(d), u64::from(d % 4), Digest(u128::from(d % 4)));
    let claim = SlotClaim { epoch, number, records, distinct, digest };
    let cut = facts.latest_cut().number.saturating_sub(u64::from(d.is_multiple_of(16)));
    let window = some_window(facts, c);
    Command::Claim { node, aggregation, window, cut, slots: [(slot, claim)].into() }
}

fn complete_step(facts: &Facts, a: u8, b: u8, off: u64) -> Command {
    let (slot, aggregation) = (a % 2, some_aggregation(facts, b));
    let (node, epoch) = primary(facts, slot);
    let known = facts.aggregations.known.get(&aggregation);
    let number = known.map_or(0, |known| known.progress(slot).number()) + 1;
    let slots = [(slot, SlotNumber { epoch: epoch + off, number })].into();
    Command::Complete { node, aggregation, slots, keeps: false }
}

fn carry_step(facts: &Facts, a: u8, b: u8, c: u8, off: u64) -> Command {
    let (slot, aggregation) = (a % 2, some_aggregation(facts, b));
    let (node, epoch) = primary(facts, slot);
    let cut = facts.latest_cut().number.saturating_sub(u64::from(c % 4)) + off;
    Command::Carry { node, aggregation, slots: [(slot, epoch)].into(), cut, keeps: true }
}

fn print_step(facts: &Facts, a: u8, b: u8, c: u8, off: u64) -> Command {
    let (aggregation, window) = (some_aggregation(facts, a), some_window(facts, b));
    let known = facts.aggregations.known.get(&aggregation);
    let fact = known.and_then(|known| known.windows.get(&window.start));
    let last = fact.and_then(|fact| fact.printed).map_or(0, |printed| printed.revision);
    let outcome = match c % 8 {
        0 => Outcome::Lost,
        1 => Outcome::Complete,
        _ => facts.is_complete(aggregation, window).outcome(),
    };
    let revision = last + u32::from(off == 0);
    let printed = Printed { revision, digest: Digest(u128::from(c % 2)), outcome };
    Command::Print { aggregation, window, printed }
}

fn lose_step(facts: &Facts, a: u8, b: u8, c: u8, off: u64) -> Command {
    let some = (some_aggregation(facts, a), some_window(facts, b));
    let (aggregation, window) = flushed(facts).filter(|_| off == 0 || b > 99).unwrap_or(some);
    let here = facts.staying();
    let asked = here.map(|(node, _)| node).skip(off as usize).collect();
    let slots = [c % 2].into_iter().collect();
    Command::LoseResults { aggregation, window, slots, asked }
}

/// A window that every slot was flushed for, and that is not settled.
fn flushed(facts: &Facts) -> Option<(u32, Window)> {
    let known = facts.aggregations.known.iter();
    let mut windows = known.flat_map(|(&number, known)| {
        known.windows.iter().map(move |(&start, fact)| (number, start, fact))
    });
    let found = windows.find(|(.., fact)| fact.waiting.is_empty() && !fact.is_settled());
    found.map(|(number, start, fact)| (number, Window { start, end: fact.end }))
}

/// What was settled so far, which nothing may change.
#[derive(Default)]
struct Settled {
    lines: BTreeMap<(u32, Window), Printed>,
    ends: BTreeMap<SegmentId, (Extent, UnixNanos)>,
}

impl Settled {
    /// Applies a command, and checks everything that has to hold.
    fn apply(&mut self, facts: &mut Facts, command: &Command) -> Result<Applied, Refused> {
        let before = facts.clone();
        let json = serde_json::to_string(command).unwrap();
        assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), *command);
        let answer = facts.apply(command.clone());
        if let Err(refused) = &answer {
            assert_eq!(*facts, before, "a refused command changed something");
            let json = serde_json::to_string(refused).unwrap();
            assert_eq!(serde_json::from_str::<Refused>(&json).unwrap(), *refused);
            return answer;
        }
        let json = serde_json::to_vec(facts).unwrap();
        assert_eq!(serde_json::from_slice::<Facts>(&json).unwrap(), *facts);
        only_forward(&before, facts);
        nobody_gone_has_anything(facts);
        within_bounds(facts);
        for number in facts.aggregations.known.keys() {
            let balance = facts.balance(*number).unwrap();
            assert!(balance.holds(), "{balance:?}");
        }
        self.ends_stay(facts);
        self.lines_stay(facts, command);
        complete_stays(&before, facts, command);
        new_owners_have_all_files(&before, facts, command);
        senders_wait_as_they_were_asked(&before, facts, command);
        answer
    }

    fn ends_stay(&mut self, facts: &Facts) {
        for (&id, segment) in &facts.segments.known {
            let Some(end) = segment.end() else { continue };
            let sealed = (end, segment.ceiling);
            assert_eq!(*self.ends.entry(id).or_insert(sealed), sealed);
            assert!(facts.cuts().all(|cut| end.continues(cut.count(id))));
            let latest = facts.latest_cut();
            let is_told = end == latest.count(id) || latest.missing.contains_key(&id);
            assert!(is_told || latest.time < segment.ceiling, "not all, and nothing missing");
        }
    }

    fn lines_stay(&mut self, facts: &Facts, command: &Command) {
        if let Command::Print { aggregation, window, printed } = command {
            let line = self.lines.entry((*aggregation, *window)).or_insert(*printed);
            assert!(line == printed || !line.outcome.is_settled(), "a settled line changed");
            *line = *printed;
        }
        for ((number, window), line) in &self.lines {
            let known = facts.aggregations.known.get(number);
            if let Some(fact) = known.and_then(|known| known.windows.get(&window.start)) {
                assert_eq!(fact.printed, Some(*line));
                if line.outcome == Outcome::Complete {
                    assert_eq!(facts.is_complete(*number, *window), Completeness::Complete);
                }
            }
        }
    }
}

/// Ids, numbers, times, counts and epochs only grow.
fn only_forward(before: &Facts, after: &Facts) {
    assert!(before.members.last <= after.members.last);
    for (id, member) in &after.members.known {
        let known = before.members.known.get(id);
        assert!(known.is_some() || *id > before.members.last, "an id was used again");
        assert!(known.is_none_or(|known| known.uuid == member.uuid && known.state <= member.state));
    }
    assert!(before.members.known.keys().all(|id| after.members.known.contains_key(id)));
    for id in after.segments.known.keys() {
        let was_there = before.segments.known.contains_key(id);
        assert!(was_there || *id > before.segments.last, "a segment's number was used again");
    }
    for number in after.aggregations.known.keys() {
        let was_there = before.aggregations.known.contains_key(number);
        assert!(was_there || *number >= before.aggregations.next, "a number was used again");
    }
    let (old, new) = (before.latest_cut(), after.latest_cut());
    assert!(old == new || (old.number + 1 == new.number && old.time < new.time));
    let stayed = |id: &SegmentId| Some((before.segments().get(id)?, after.segments().get(id)?));
    for (was, is) in before.segments().keys().filter_map(stayed) {
        assert!(is.ceiling <= was.ceiling, "a ceiling rose");
        assert!(is.floor <= is.ceiling);
    }
    for id in before.segments.known.keys().filter(|id| after.segments.known.contains_key(id)) {
        assert!(new.count(*id).continues(old.count(*id)), "a count fell back");
        assert!(before.trimmed(*id) <= after.trimmed(*id), "what was trimmed came back");
    }
    for (slot, ownership) in &before.slots {
        let now = &after.slots[slot];
        assert!(ownership.epoch <= now.epoch);
        assert!(ownership.owners == now.owners || ownership.epoch < now.epoch);
    }
}

fn nobody_gone_has_anything(facts: &Facts) {
    let is_here = |node: &NodeId| !facts.members.known[node].state.is_gone();
    for Ownership { owners, wanted, filling, .. } in facts.slots.values() {
        assert!(owners.iter().chain(wanted).chain(filling.keys()).all(is_here));
        assert!(filling.keys().all(|node| wanted.contains(node) && !owners.contains(node)));
        assert!(wanted.iter().all(|node| owners.contains(node) || filling.contains_key(node)));
    }
    let mut writers = Vec::new();
    for segment in facts.segments.known.values() {
        assert!(segment.nodes().all(|node| is_here(&node)));
        if segment.state == SegmentState::Open {
            assert!(!writers.contains(&segment.writer), "two segments of one writer are open");
            writers.push(segment.writer);
        }
    }
}

fn within_bounds(facts: &Facts) {
    let aggregations = &facts.aggregations.known;
    let per_slot = aggregations.len() * usize::from(SETTINGS.slots);
    assert!(facts.cuts.older.len() <= 60 + 2 * per_slot + aggregations.len());
    let now = facts.latest_cut().time.0;
    for aggregation in aggregations.values() {
        assert!(aggregation.slots.len() <= usize::from(SETTINGS.slots));
        assert!(aggregation.windows.values().all(|window| window.end.0 + 3600 * SECOND > now));
        let slots = aggregation.slots.values();
        assert!(slots.clone().all(|slot| slot.carried <= facts.latest_cut().number));
    }
}

/// What was complete stays complete, unless it is given up before it was printed.
fn complete_stays(before: &Facts, after: &Facts, command: &Command) {
    for (number, aggregation) in &after.aggregations.known {
        for (start, fact) in &aggregation.windows {
            let window = Window { start: *start, end: fact.end };
            if before.is_complete(*number, window) == Completeness::Complete {
                let found = after.is_complete(*number, window);
                let given_up =
                    matches!(command, Command::Forget { .. } | Command::LoseResults { .. });
                assert!(found == Completeness::Complete || given_up, "{found:?}");
            }
        }
    }
}

/// Whoever says that it has filled has what the slot's checkpoints of files have.
fn new_owners_have_all_files(before: &Facts, after: &Facts, command: &Command) {
    let Command::Filled { slots, files, .. } = command else { return };
    for slot in slots.keys().filter(|slot| before.slots.get(slot) != after.slots.get(slot)) {
        for (number, known) in after.aggregations().iter().filter(|(_, known)| known.takes_chunks())
        {
            let has = files.get(number).and_then(|has| has.get(slot)).copied().unwrap_or(0);
            assert!(has >= known.progress(*slot).number(), "an owner lacks a checkpoint of files");
        }
    }
}

/// One command alone changes how long senders wait, and nothing else.
fn senders_wait_as_they_were_asked(before: &Facts, after: &Facts, command: &Command) {
    match *command {
        Command::Throttle { seconds } => {
            assert_eq!(*after, Facts { throttle_seconds: seconds, ..before.clone() });
        }
        _ => assert_eq!(after.throttle_seconds, before.throttle_seconds),
    }
}

fn run(steps: &[Step], mut seen: impl FnMut(&Result<Applied, Refused>)) {
    let mut facts = Cluster::of(3).facts;
    let mut settled = Settled::default();
    for step in steps {
        let command = command(&facts, *step);
        seen(&settled.apply(&mut facts, &command));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_is_asked_of_them_the_facts_stay_sound(steps in steps()) {
        run(&steps, |_| {});
    }
}

/// What came of a command, in one word.
fn outcome(answer: &Result<Applied, Refused>) -> String {
    let text = match answer {
        Err(refused) => format!("{refused:?}"),
        Ok(Applied::Claims(answers)) => format!("{:?}", answers.values().next().unwrap()),
        Ok(Applied::Completions(answers)) => format!("{:?}", answers.values().next().unwrap()),
        Ok(Applied::Carries(answers)) => format!("{:?}", answers.values().next().unwrap()),
        Ok(applied) => format!("{applied:?}"),
    };
    text.split([' ', '(']).next().unwrap().to_owned()
}

/// The test above is worth something only if random commands get everywhere.
#[test]
fn random_commands_meet_nearly_every_answer() {
    let seen = RefCell::new(BTreeSet::new());
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let all = TestRunner::new_with_rng(config, rng).run(&steps(), |steps| {
        run(&steps, |answer| seen.borrow_mut().extend([outcome(answer)]));
        Ok(())
    });
    all.unwrap();
    let expected = "
        Done Node Segment Accepted Again StaleEpoch WrongNumber Resume Diverged CutUnknown Flushed
        Completed NotClaimed Carried NoNode Gone Leaving NotActive NotDraining TooFewLeft
        StillOwner StillCopy StillAppending LeaseRuns NoSegment WrongCopies StillOpen NotSealing
        NotSealed OtherEnd OtherStamps BelowCut WrongHolders Lost StaleCut EarlierCut CountFellBack PastEnd
        NoSlot
        OtherEpoch WrongOwners NotCopied NoAggregation NotEnded Settled OtherRevision OtherOutcome
        NotFlushed NotAsked";
    let seen = seen.into_inner();
    let missing: Vec<_> =
        expected.split_whitespace().filter(|&word| !seen.contains(word)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}
