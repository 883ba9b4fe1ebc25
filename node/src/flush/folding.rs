//! The thread that folds what becomes durable, here and elsewhere, and finds what is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::aggregation::distinct_logs;
use crate::checkpoint::facts::Facts;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::{UnixNanos, Window};
use crate::flush::carried::{CarriedWindows, carried};
use crate::flush::delivery::Flush;
use crate::flush::feed::{Batch, Consensus, Disagreement, Feed, pass_on};
use crate::flush::files::Files;
use crate::flush::gaps::Gaps;
use crate::flush::group::{CurrentWindow, Group, OpenFigures, alike, joint};
use crate::flush::learning::{Learned, Learning};
use crate::flush::requests::{self, Decided};
use crate::flush::{FlushError, FlushSettings};
use crate::journal::{JournalError, Position};
use crate::store::{Store, StoreError};

/// Batches that wait to be folded.
const BATCHES_MAX: usize = 8;

/// What the thread is told or asked.
enum Command {
    Closed { group: u64, aggregation: u32, window: Window, given_up: SlotSet },
    Current { limit: usize, answer: oneshot::Sender<Vec<CurrentWindow>> },
    Pending { answer: oneshot::Sender<Option<Pending>> },
}

/// What of a node's slots was folded and not flushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The number of the newest cut.
    pub cut: u64,
    /// Records below it that are in no flushed window, by aggregation.
    pub records: BTreeMap<u32, u64>,
    /// Records below it, of any slot, that were not counted because they repeat others.
    #[serde(default)]
    pub repeated: BTreeMap<u32, u64>,
}

/// Told at every cut how large what is open is; must not block.
pub type Observer = Box<dyn Fn(&OpenFigures) + Send>;

/// A handle on the folding thread; cheap to clone. The thread ends with the last one.
#[derive(Clone)]
pub struct Folding {
    commands: mpsc::UnboundedSender<Command>,
    decided: watch::Receiver<Arc<Decided>>,
    reached: watch::Receiver<Vec<Reached>>,
    gaps: watch::Receiver<Arc<Gaps>>,
    /// The newest cut up to which it was recorded what is decided.
    recorded: Arc<AtomicU64>,
}

/// The folding thread's end of the handle.
pub struct Commands {
    received: mpsc::UnboundedReceiver<Command>,
    decided: watch::Sender<Arc<Decided>>,
    reached: watch::Sender<Vec<Reached>>,
    gaps: watch::Sender<Arc<Gaps>>,
}

/// Up to which time some slots are folded.
struct Reached {
    slots: u64,
    until: UnixNanos,
}

impl Folding {
    /// A handle, and what is to be run behind it.
    pub fn new() -> (Folding, Commands) {
        let (commands, received) = mpsc::unbounded_channel();
        let (decided, told) = watch::channel(Arc::default());
        let (reached, shown) = watch::channel(Vec::new());
        let (gaps, over) = watch::channel(Arc::default());
        let recorded = Arc::default();
        let folding = Folding { commands, decided: told, reached: shown, gaps: over, recorded };
        (folding, Commands { received, decided, reached, gaps })
    }

    /// Which entries repeat a request, as far as it is decided.
    pub fn decided(&self) -> Arc<Decided> {
        Arc::clone(&self.decided.borrow())
    }

    /// The files of which only what closes their gaps is to be taken, as of the newest cut.
    pub fn gaps(&self) -> Arc<Gaps> {
        Arc::clone(&self.gaps.borrow())
    }

    /// How many slots were folded up to a cut at this time or later, as of the newest cut.
    pub fn folded(&self, since: UnixNanos) -> u64 {
        let reached = self.reached.borrow();
        reached.iter().filter(|reached| reached.until >= since).map(|reached| reached.slots).sum()
    }

    /// Makes durable what is decided, which is all that was handed on: once it is claimed,
    /// nobody can be asked for the journal before.
    pub(super) fn record_decided(&self, store: &Store) -> Result<(), StoreError> {
        let decided = self.decided();
        if decided.cut > self.recorded.load(Ordering::Relaxed) {
            requests::record(store, &decided)?;
            self.recorded.store(decided.cut, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A window was handed out, but for the slots that were given up because they belong to
    /// another node.
    pub(super) fn closed(&self, group: u64, aggregation: u32, window: Window, given_up: SlotSet) {
        // After a failure nobody folds; what is durable is folded at the next start.
        let _ = self.commands.send(Command::Closed { group, aggregation, window, given_up });
    }

    /// The open windows, as far as they have got; empty when the thread has ended.
    pub async fn current(&self, limit: usize) -> Vec<CurrentWindow> {
        let (answer, current) = oneshot::channel();
        let _ = self.commands.send(Command::Current { limit, answer });
        current.await.unwrap_or_default()
    }

    /// What is not flushed; `None` while less is folded than the newest cut counts, and when
    /// the thread has ended.
    pub async fn pending(&self) -> Option<Pending> {
        let (answer, pending) = oneshot::channel();
        let _ = self.commands.send(Command::Pending { answer });
        pending.await.ok().flatten()
    }
}

#[cfg(test)]
impl Commands {
    /// Tells of these gaps.
    pub(crate) fn tell(&self, gaps: Gaps) {
        gaps.tell(&self.gaps);
    }

    /// The windows that were handed out, and the slots that were given up.
    pub(super) fn closed(&mut self) -> Vec<(Window, SlotSet)> {
        let received = std::iter::from_fn(|| self.received.try_recv().ok());
        let closed = received.filter_map(|command| match command {
            Command::Closed { window, given_up, .. } => Some((window, given_up)),
            Command::Current { .. } | Command::Pending { .. } => None,
        });
        closed.collect()
    }
}

/// What a folder is made of.
pub struct Parts {
    /// Which node folds.
    pub node: NodeId,
    /// How.
    pub settings: FlushSettings,
    /// What is carried.
    pub carried: CarriedWindows,
    /// The rebuilt files.
    pub files: Files,
    /// What the cluster agrees on.
    pub consensus: Arc<dyn Consensus>,
    /// Where entries come from.
    pub feed: Arc<dyn Feed>,
    /// Where what is due goes.
    pub flushes: mpsc::UnboundedSender<Flush>,
    /// Told at every cut.
    pub observer: Observer,
}

/// The state of every open window of this node's slots.
pub struct Folder {
    parts: Parts,
    facts: watch::Receiver<Arc<Facts>>,
    learning: Learning,
    reached: watch::Sender<Vec<Reached>>,
    gaps: watch::Sender<Arc<Gaps>>,
    /// By number, which is never used again.
    groups: BTreeMap<u64, Group>,
    groups_made: u64,
    /// Those that have folded what is lost by now, and have something on its way out. Nobody else
    /// folds their slots until then: without what is lost, files would be shorter.
    ending: BTreeMap<u64, Group>,
    /// The number of the cut at which it was last seen which of them can be one.
    joined_at: u64,
    /// One for each group and segment.
    streams: BTreeMap<(u64, u64), AbortOnDropHandle<()>>,
    sender: mpsc::Sender<Result<Received, JournalError>>,
    received: mpsc::Receiver<Result<Received, JournalError>>,
    /// What cannot be folded before the facts change.
    waiting: Option<Received>,
    /// Whether something may be due once more is folded.
    is_behind: bool,
}

struct Received {
    group: u64,
    segment: u64,
    batch: Batch,
}

impl Folder {
    /// Nothing folded yet; what is decided is told behind the handle.
    ///
    /// # Errors
    /// When what earlier lives left in the scratch folder cannot be removed, or the database
    /// cannot be read.
    pub fn new(parts: Parts, commands: &Commands) -> Result<Folder, FlushError> {
        let kept = parts.carried.all()?;
        let kept: Vec<_> = kept.iter().map(carried).collect::<Result<_, _>>()?;
        distinct_logs::remove_all_but(&parts.settings.scratch, &kept)?;
        let facts = parts.consensus.facts();
        let recorded = requests::recorded(parts.carried.carries.store())?;
        let learning = Learning::new(Arc::clone(&parts.feed), recorded, commands.decided.clone());
        let (sender, received) = mpsc::channel(BATCHES_MAX);
        let (groups, ending, streams) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (groups_made, joined_at, waiting, is_behind) = (0, 0, None, false);
        Ok(Folder {
            parts,
            facts,
            learning,
            reached: commands.reached.clone(),
            gaps: commands.gaps.clone(),
            groups,
            groups_made,
            ending,
            joined_at,
            streams,
            sender,
            received,
            waiting,
            is_behind,
        })
    }

    /// Folds and finds what is due until the last [`Folding`] is dropped.
    ///
    /// # Errors
    /// When an entry cannot be read, a window's state cannot be kept, or the node takes no
    /// part any more.
    pub async fn run(mut self, mut commands: Commands) -> Result<(), FlushError> {
        self.follow_facts()?;
        loop {
            tokio::select! {
                command = commands.received.recv() => match command {
                    Some(command) => self.obey(command)?,
                    None => return Ok(()),
                },
                changed = self.facts.changed() => match changed {
                    Ok(()) => self.follow_facts()?,
                    Err(_) => return Err(Disagreement::facts_ended().into()),
                },
                learned = self.learning.next() => self.learn(learned?)?,
                Some(received) = self.received.recv(), if self.waiting.is_none() => {
                    self.fold(received?)?;
                }
            }
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), FlushError> {
        match command {
            Command::Closed { group: number, aggregation, window, given_up } => {
                let Folder { groups, ending, .. } = self;
                if let Some(group) = groups.get_mut(&number).or_else(|| ending.get_mut(&number)) {
                    group.closed(aggregation, window);
                    group.retain(|slot| !given_up.contains(slot));
                }
                let before = ending.len();
                ending.retain(|_, group| group.is_closing());
                if ending.len() < before || !given_up.is_empty() {
                    self.follow_facts()?;
                }
            }
            // Whoever asked may have gone.
            Command::Current { limit, answer } => {
                let current = self.groups.values().flat_map(|group| group.current(limit));
                drop(answer.send(current.collect()));
            }
            Command::Pending { answer } => drop(answer.send(self.pending())),
        }
        Ok(())
    }

    fn pending(&self) -> Option<Pending> {
        let facts = self.facts.borrow().clone();
        let cut = facts.latest_cut();
        let mut records = BTreeMap::new();
        if !self.ending.is_empty() {
            return None;
        }
        for group in self.groups.values() {
            if group.newest_reached(&facts) != Some(cut.number) {
                return None;
            }
            for (number, pending) in group.pending(&facts, cut.time) {
                *records.entry(number).or_default() += pending;
            }
        }
        let repeated = self.learning.decided().records().clone();
        Some(Pending { cut: cut.number, records, repeated })
    }

    fn fold(&mut self, received: Received) -> Result<(), FlushError> {
        let Received { group: number, segment, batch } = &received;
        // A group whose slots went away may still get something.
        let Some(group) = self.groups.get_mut(number) else { return Ok(()) };
        if !group.fold(*segment, batch, &self.parts.settings)? {
            self.waiting = Some(received);
            return Ok(());
        }
        let folded = self.groups.values().map(|group| group.next(*segment)).max();
        self.parts.feed.folded(*segment, folded.unwrap_or(u64::MAX));
        if self.is_behind { self.close() } else { Ok(()) }
    }

    fn learn(&mut self, learned: Learned) -> Result<(), FlushError> {
        let facts = self.facts.borrow().clone();
        self.learning.take(learned, &facts)?;
        if self.decide(&facts)? && self.is_behind { self.close() } else { Ok(()) }
    }

    /// Decides which entries repeat a request, and folds those that have waited for that.
    /// Says whether more is decided than before.
    fn decide(&mut self, facts: &Facts) -> Result<bool, FlushError> {
        if !self.learning.decide(facts) {
            return Ok(false);
        }
        for group in self.groups.values_mut() {
            // What names an aggregation that is not known yet is folded when it is.
            group.decide(self.learning.decided(), &self.parts.settings)?;
        }
        if let Some(received) = self.waiting.take() {
            self.fold(received)?;
        }
        Ok(true)
    }

    /// Does what the newest facts ask for.
    fn follow_facts(&mut self) -> Result<(), FlushError> {
        let facts = self.facts.borrow_and_update().clone();
        let counting = facts.aggregations().values().filter(|known| known.until.is_none());
        self.parts.settings.divide_memory(counting.count());
        let (lost, groups) = std::mem::take(&mut self.groups)
            .into_iter()
            .partition(|(_, group)| group.has_lost(&facts));
        self.groups = groups;
        self.ending.extend(lost);
        self.ending.retain(|_, group| group.is_closing());
        self.follow_owners(&facts)?;
        self.join(&facts)?;
        self.learning.decide(&facts);
        for group in self.groups.values_mut() {
            group.register(&facts, &self.parts.settings)?;
            group.decide(self.learning.decided(), &self.parts.settings)?;
        }
        self.follow_segments(&facts);
        if let Some(received) = self.waiting.take() {
            self.fold(received)?;
        }
        self.close()?;
        self.carry(&facts)?;
        self.report();
        Ok(())
    }

    /// Gives up slots that belong to others now, and begins with those that are new.
    fn follow_owners(&mut self, facts: &Facts) -> Result<(), FlushError> {
        let owned = facts.primary_of(self.parts.node);
        for groups in [&mut self.groups, &mut self.ending] {
            groups.values_mut().for_each(|group| group.retain(|slot| owned.contains(slot)));
            groups.retain(|_, group| !group.slots().is_empty());
        }
        let folded = self.groups.values().chain(self.ending.values()).map(Group::slots);
        let new = folded.fold(owned, |left, slots| left.difference(&slots));
        if !new.is_empty() {
            let kept = self.parts.carried.all()?;
            for slots in alike(facts, &new, &kept) {
                self.begin(slots, BTreeMap::new(), facts)?;
            }
        }
        Ok(())
    }

    /// Begins anew with groups that can be one by now, as their windows were flushed at the same
    /// cuts: each of them reads all segments, and hands out for itself. What is open of them is
    /// folded again.
    fn join(&mut self, facts: &Facts) -> Result<(), FlushError> {
        let cut = facts.latest_cut().number;
        if self.groups.len() < 2 || self.joined_at == cut {
            return Ok(());
        }
        self.joined_at = cut;
        let mut beginnings = Vec::new();
        for (&number, group) in &self.groups {
            let Some(beginning) = group.beginning(facts) else { continue };
            if self.parts.carried.of(&beginning.slots())?.is_empty() {
                beginnings.push((number, beginning));
            }
        }
        for (numbers, beginning) in joint(facts, beginnings.into_iter()) {
            debug!(groups = numbers.len(), slots = %beginning.slots(), "folded as one");
            // Nobody is to fold the slots when the new group begins to.
            self.groups.retain(|number, _| !numbers.contains(number));
            self.begin(beginning.slots(), beginning.newest(), facts)?;
        }
        Ok(())
    }

    fn begin(
        &mut self,
        slots: SlotSet,
        from: BTreeMap<u32, u64>,
        facts: &Facts,
    ) -> Result<(), FlushError> {
        let own = self.parts.carried.of(&slots)?;
        let Parts { settings, files, .. } = &self.parts;
        let group = Group::resume(slots, from, own, facts, settings, files)?;
        self.groups.insert(self.groups_made, group);
        self.groups_made += 1;
        Ok(())
    }

    /// Follows every segment for every group.
    fn follow_segments(&mut self, facts: &Facts) {
        let Folder { streams, groups, sender, parts, .. } = self;
        let is_wanted = |(group, segment): &(u64, u64)| {
            groups.contains_key(group) && facts.segments().contains_key(segment)
        };
        streams.retain(|stream, _| is_wanted(stream));
        for (&number, group) in groups.iter() {
            for &segment in facts.segments().keys() {
                streams.entry((number, segment)).or_insert_with(|| {
                    let from = Position { segment, index: group.next(segment) };
                    let batches = parts.feed.follow(from, group.slots());
                    let sender = sender.clone();
                    let received = batches.map(move |batch| {
                        batch.map(|batch| Received { group: number, segment, batch })
                    });
                    AbortOnDropHandle::new(tokio::spawn(pass_on(received, sender)))
                });
            }
        }
        if groups.is_empty() {
            // What is admitted is not held for a fold that there is not.
            facts.segments().keys().for_each(|&segment| parts.feed.folded(segment, u64::MAX));
        }
    }

    /// Hands on the windows that the cuts have closed.
    fn close(&mut self) -> Result<(), FlushError> {
        let facts = self.facts.borrow().clone();
        self.decide(&facts)?;
        self.is_behind = false;
        for (&number, group) in &mut self.groups {
            let closings = group.close(&facts)?;
            self.is_behind |= closings.is_behind;
            for closing in closings.now {
                self.parts.carried.record(&closing.carries)?;
                let closing = Box::new(closing);
                // If the other thread failed, the node is about to open its database again.
                let _ = self.parts.flushes.send(Flush::Window { group: number, closing });
            }
            for checkpoint in closings.files {
                let checkpoint = Box::new(checkpoint);
                let _ = self.parts.flushes.send(Flush::Files { group: number, checkpoint });
            }
        }
        Ok(())
    }

    /// Makes open windows durable where the journal that they need is too large.
    fn carry(&mut self, facts: &Facts) -> Result<(), FlushError> {
        for (&number, group) in &mut self.groups {
            let Some(cut) = group.newest_reached(facts) else { continue };
            let (aggregations, carries) = match group.carry(&self.parts.settings)? {
                Some(carries) => (group.aggregations(), carries),
                None => (group.idle(facts, cut), Vec::new()),
            };
            // At once: what waits to be recorded may have been carried elsewhere since.
            self.parts.carried.record(&carries)?;
            if !aggregations.is_empty() {
                let (slots, windows) = (group.slots(), carries.len());
                let carry = Flush::Carry { group: number, slots, aggregations, cut, windows };
                let _ = self.parts.flushes.send(carry);
            }
        }
        Ok(())
    }

    fn reached(&self, group: &Group) -> Reached {
        let facts = self.facts.borrow();
        let cut = group.newest_reached(&facts).and_then(|number| facts.cut(number));
        let until = cut.map(|cut| cut.time).unwrap_or_default();
        Reached { slots: group.slots().len() as u64, until }
    }

    fn report(&self) {
        let mut open = OpenFigures::default();
        self.groups.values().for_each(|group| group.add_figures(&mut open));
        (self.parts.observer)(&open);
        Gaps::over(self.groups.values().flat_map(Group::gaps)).tell(&self.gaps);
        self.reached.send_replace(self.groups.values().map(|group| self.reached(group)).collect());
    }
}

#[cfg(test)]
mod tests;
