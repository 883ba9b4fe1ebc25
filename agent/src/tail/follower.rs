//! Follows the files: finds them, reads what is new, cuts it into chunks, writes down what was
//! cut, and only then hands it over.

mod departure; // files that are renamed, deleted, truncated or done with
mod fullness; // what there is no room for
mod holding; // sessions of which a node does not take the next chunk
mod places; // what became of files, by the names that lead to them
mod resume; // what was followed before a restart
mod scan; // looks at all files
mod search; // files that are elsewhere now
mod turn; // reads, cuts and hands over

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    io,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::UnboundedSender;

use self::{
    fullness::{Fullness, Lack},
    holding::Held,
};
use super::{
    Mailbox, Settings, State, Watch,
    mailbox::{Answer, Verdict},
    parcel::Parcel,
    report::{tell, tell_of},
    session::{End, Entry, Key, OutOfPlace},
    source::Source,
};

/// Changes are collected for this long, so that a busy writer does not wake the agent each time.
const COLLECT: Duration = Duration::from_millis(20);
/// What nobody waits for is written down this often.
const WRITE_DOWN: Duration = Duration::from_secs(1);
/// .. or when there is so much of it.
const PENDING_MAX: usize = 4096;
/// How long to wait before something that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Why files cannot be followed any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// A mistake of this program.
    #[error("take a note of what was sent")]
    OutOfPlace(#[from] OutOfPlace),
    /// It was to stop, and could not write down what it did.
    #[error("write the state")]
    Commit(#[source] io::Error),
    /// The system cannot say when something happens.
    #[error("wait for changes")]
    Wait(#[source] io::Error),
}

/// Follows files until it is told to stop.
#[derive(Debug)]
pub(crate) struct Follower {
    settings: Settings,
    state: State,
    mailbox: Mailbox,
    parcels: UnboundedSender<Parcel>,
    watch: Watch,
    files: BTreeMap<Key, Followed>,
    /// The files by the names under which the system tells of them.
    locations: HashMap<PathBuf, Key>,
    /// Sessions that are complete, by where their files are on disk.
    complete: HashMap<(u64, u64), Key>,
    /// What is to be looked at, and when.
    due: BTreeSet<(Instant, Key)>,
    /// What waits for room, and what did until it was looked at for another reason.
    waiting: VecDeque<Key>,
    /// What goes out when it is written down.
    out: Vec<Parcel>,
    /// The memory that chunks under way take.
    in_flight: usize,
    open_files: usize,
    scans: scan::Schedule,
    started: Instant,
    /// From when on the system is asked for changes again.
    listen_from: Instant,
    committed: Instant,
    /// Sessions whose spool can go once the answers are written down.
    delivered: BTreeSet<Key>,
    /// What was told already, about which file.
    told: HashSet<PathBuf>,
    full: Fullness,
    has_given_up: bool,
}

/// A file that is followed, as far as a restart may forget it.
#[derive(Debug)]
struct Followed {
    /// Open, unless too many files are.
    source: Option<Source>,
    /// Whether a name that is followed leads to it: the session's path.
    is_named: bool,
    /// Whether its bytes are not to be had any more.
    is_lost: bool,
    location: Option<PathBuf>,
    /// The last chunk that was handed over in this life.
    handed: u64,
    due: Option<Instant>,
    /// Since a node did not take its next chunk.
    held: Option<Held>,
    /// Whether it waits for room.
    is_waiting: bool,
    /// Whether all that it had was read when it was looked at.
    is_read: bool,
    /// When it was written to, when it was looked at.
    modified: i64,
    /// Since when nothing was added to it.
    quiet_since: Instant,
    /// The session before it, which has to be read to its end first.
    predecessor: Option<Key>,
}

impl Followed {
    /// A file that a name leads to, of which nothing is known.
    fn new(now: Instant) -> Followed {
        Followed {
            source: None,
            is_named: true,
            is_lost: false,
            location: None,
            handed: 0,
            due: None,
            held: None,
            is_waiting: false,
            is_read: false,
            modified: 0,
            quiet_since: now,
            predecessor: None,
        }
    }
}

impl Follower {
    /// Nothing is followed yet.
    pub(crate) fn new(
        settings: Settings,
        state: State,
        mailbox: Mailbox,
        parcels: UnboundedSender<Parcel>,
    ) -> Follower {
        let (watch, error) = Watch::new();
        if let Some(error) = error {
            tell(&format!("the system does not tell of changes ({error}): files are only polled"));
        }
        let now = Instant::now();
        Follower {
            settings,
            state,
            mailbox,
            parcels,
            watch,
            files: BTreeMap::new(),
            locations: HashMap::new(),
            complete: HashMap::new(),
            due: BTreeSet::new(),
            waiting: VecDeque::new(),
            out: Vec::new(),
            in_flight: 0,
            open_files: 0,
            scans: scan::Schedule::new(now),
            started: now,
            listen_from: now,
            committed: now,
            delivered: BTreeSet::new(),
            told: HashSet::new(),
            full: Fullness::default(),
            has_given_up: false,
        }
    }

    /// Follows the files until it is told to stop, or with `once` until all is sent. `true`: no
    /// file had to be given up.
    ///
    /// # Errors
    /// If the system is in trouble.
    pub(crate) fn run(mut self) -> Result<bool, FollowError> {
        self.resume()?;
        while !self.mailbox.is_stopped() && !self.is_done() {
            self.hear()?;
            self.scan_if_due()?;
            self.turn()?;
            self.commit()?;
            self.tell_full();
            self.rest()?;
        }
        self.drain()?;
        Ok(!self.has_given_up)
    }

    /// Whether all is sent that was there.
    fn is_done(&self) -> bool {
        let is_idle = self.due.is_empty() && self.in_flight == 0;
        let waits = || self.files.values().any(|file| file.is_waiting);
        self.settings.once && self.scans.has_begun() && is_idle && !waits()
    }

    /// Takes what the system and the nodes tell.
    fn hear(&mut self) -> Result<(), FollowError> {
        self.mailbox.quiet();
        let answers = self.mailbox.answers();
        self.take(answers)?;
        let now = Instant::now();
        if now < self.listen_from {
            return Ok(());
        }
        let changes = self.watch.changes();
        if changes.names {
            self.scans.hurry(now);
        }
        let beat = self.beat(now);
        for path in &changes.written {
            if let Some(key) = self.locations.get(path) {
                self.look_at(*key, beat);
            }
        }
        if changes.names || !changes.written.is_empty() {
            self.listen_from = now + COLLECT;
        }
        Ok(())
    }

    fn take(&mut self, answers: Vec<Answer>) -> Result<(), FollowError> {
        if answers.is_empty() {
            return Ok(());
        }
        let mut answered = BTreeMap::new();
        for Answer { key, seq, weight, verdict } in answers {
            self.in_flight = self.in_flight.saturating_sub(weight);
            match verdict {
                Verdict::Refused(reason) => {
                    self.give_up(key, &format!("a node refuses chunk {seq}: {reason}"))?
                }
                Verdict::NotTaken(reason) => self.put_off(key, seq, &reason),
                Verdict::PutOff => self.unhand(key, seq),
                Verdict::Taken => {
                    answered.insert(key, seq);
                }
            }
        }
        if !answered.is_empty() && self.full.has_ended(Lack::Window) {
            tell("nodes answer again: reading goes on");
        }
        for (key, seq) in answered {
            let Some(session) = self.state.get(key) else { continue };
            if session.end != Some(End::GivenUp) {
                let is_last = session.unanswered.back().is_none_or(|cut| cut.seq <= seq);
                self.state.record(Entry::Answered { key, seq })?;
                self.release(key, seq);
                if is_last {
                    self.delivered.insert(key);
                }
            }
        }
        self.wake();
        Ok(())
    }

    /// Has those looked at that wait for room, as many as there may be room for.
    fn wake(&mut self) {
        let now = Instant::now();
        let room = self.settings.window.saturating_sub(self.in_flight);
        // Each asks for a chunk of room at most; what finds none waits again.
        for _ in 0..room.div_ceil(self.settings.chunk_size).saturating_mul(4) {
            let Some(key) = self.waiting.pop_front() else { break };
            if let Some(file) = self.files.get_mut(&key) {
                file.is_waiting = false;
            }
            self.look_at(key, now);
        }
    }

    /// When what is written now is cut: all files at once, so that one sync serves many.
    fn beat(&self, now: Instant) -> Instant {
        let interval = self.settings.chunk_interval.as_nanos().max(1);
        let since = (now - self.started).as_nanos();
        let left = interval - since % interval;
        now + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// Has a file looked at no later than then.
    fn look_at(&mut self, key: Key, at: Instant) {
        let Some(file) = self.files.get_mut(&key) else { return };
        if file.due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(due) = file.due.replace(at) {
            self.due.remove(&(due, key));
        }
        self.due.insert((at, key));
    }

    /// Writes down what happened; what was cut goes out then.
    fn commit(&mut self) -> Result<(), FollowError> {
        let is_time = self.committed.elapsed() >= WRITE_DOWN && self.state.pending() > 0;
        if self.out.is_empty() && !is_time && self.state.pending() < PENDING_MAX {
            return Ok(());
        }
        let mut is_told = false;
        while let Err(error) = self.state.commit() {
            if !is_told {
                tell(&format!("write the state: {error}; nothing is read or sent until it can be"));
            }
            is_told = true;
            if self.mailbox.is_stopped() {
                return Err(FollowError::Commit(error));
            }
            self.wait(Instant::now() + TRY_AGAIN, false)?;
        }
        if is_told {
            tell("the state can be written again");
        }
        self.committed = Instant::now();
        for parcel in self.out.drain(..) {
            // The sender ends after this thread.
            let _ = self.parcels.send(parcel);
        }
        self.clear_spools();
        Ok(())
    }

    /// Removes the spools of sessions of which nothing is on its way.
    fn clear_spools(&mut self) {
        let before = self.state.spooled_bytes();
        for key in std::mem::take(&mut self.delivered) {
            let is_delivered = |key| self.state.get(key).is_none_or(|it| it.unanswered.is_empty());
            if is_delivered(key)
                && let Err(error) = self.state.clear_spool(key)
            {
                tell(&format!("remove from the state folder what was sent: {error}"));
            }
        }
        if self.state.spooled_bytes() < before {
            if self.full.has_ended(Lack::Spool) {
                tell("the spool has room again");
            }
            self.wake_unnamed();
        }
    }

    /// Has those looked at that wait for room in the spool.
    fn wake_unnamed(&mut self) {
        let now = Instant::now();
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|key| {
            let Some(file) = self.files.get_mut(key).filter(|file| !file.is_named) else {
                return true;
            };
            file.is_waiting = false;
            self.look_at(*key, now);
            false
        });
        self.waiting = waiting;
    }

    fn tell_full(&mut self) {
        for lack in self.full.take_untold(Instant::now()) {
            tell(match lack {
                Lack::Window => {
                    "no node answers what is under way, and there is no room for more \
                     (--window): reading waits, the files keep what is written"
                }
                Lack::Spool => {
                    "the spool is full (--spool): what is left of renamed and deleted files waits \
                     in the open files, and is lost if they are deleted and the agent ends"
                }
            });
        }
    }

    /// Waits until there is something to do.
    fn rest(&mut self) -> Result<(), FollowError> {
        let due = self.due.first().map(|(at, _)| *at);
        let write_down = (self.state.pending() > 0).then(|| self.committed + WRITE_DOWN);
        let tell_full = self.full.next_to_tell();
        let times = [due, write_down, tell_full, Some(self.scans.next())].into_iter().flatten();
        let until = times.min().unwrap_or_else(Instant::now);
        self.wait(until, true)
    }

    /// Waits until then, or until something comes; changes of files only if it is asked to.
    fn wait(&self, until: Instant, listen: bool) -> Result<(), FollowError> {
        let now = Instant::now();
        let listens = listen && now >= self.listen_from;
        let until = if listen && !listens { until.min(self.listen_from) } else { until };
        let mailbox = self.mailbox.bell();
        let mut bells = vec![PollFd::new(&mailbox, PollFlags::IN)];
        let changes = self.watch.bell().filter(|_| listens);
        if let Some(changes) = &changes {
            bells.push(PollFd::new(changes, PollFlags::IN));
        }
        let left = until.saturating_duration_since(now);
        // Rounded up, so that nothing is looked at too early, again and again.
        let left = if left.is_zero() { left } else { left + Duration::from_micros(100) };
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut bells, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(FollowError::Wait(error.into())),
        }
    }

    /// Waits for the answers to what was sent, for a while.
    fn drain(&mut self) -> Result<(), FollowError> {
        let deadline = Instant::now() + self.settings.drain_timeout;
        while self.in_flight > 0 && Instant::now() < deadline {
            self.mailbox.quiet();
            let answers = self.mailbox.answers();
            if answers.is_empty() {
                self.wait(deadline, false)?;
            }
            self.take(answers)?;
        }
        if self.in_flight > 0 {
            tell("not all that was sent is answered; it is sent again after the next start");
        }
        self.state.commit().map_err(FollowError::Commit)?;
        self.clear_spools();
        Ok(())
    }

    /// Nothing more is read of a file, nor sent.
    fn give_up(&mut self, key: Key, why: &str) -> Result<(), FollowError> {
        let Some(session) = self.state.get(key) else { return Ok(()) };
        if session.end == Some(End::GivenUp) {
            return Ok(());
        }
        tell_of(&session.path, &format!("ERROR: it is given up: {why}"));
        self.has_given_up = true;
        self.state.record(Entry::Ended { key, end: End::GivenUp })?;
        self.delivered.insert(key);
        self.close(key);
        Ok(())
    }

    /// Tells about a file once, until it can be followed.
    fn tell_once(&mut self, path: &std::path::Path, text: &str) {
        if self.told.insert(path.to_owned()) {
            tell_of(path, text);
        }
    }

    fn open(&mut self, key: Key, source: Source) {
        if let Some(file) = self.files.get_mut(&key) {
            let before = file.source.replace(source);
            self.open_files += usize::from(before.is_none());
        }
    }

    fn close(&mut self, key: Key) {
        if let Some(file) = self.files.get_mut(&key) {
            self.open_files -= usize::from(file.source.take().is_some());
        }
    }
}

fn milliseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
