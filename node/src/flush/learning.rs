//! Learns the ids of all entries, and keeps deciding which of them repeat a request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::checkpoint::facts::{Facts, SegmentId};
use crate::event::slots::SlotSet;
use crate::flush::FlushError;
use crate::flush::feed::{Batch, Feed, Told, pass_on};
use crate::flush::requests::{Decided, Progress, Requests};
use crate::journal::{JournalError, Position};

/// Batches of ids that wait to be taken.
const BATCHES_MAX: usize = 8;
/// How often the other members are asked, if some do not answer.
const ATTEMPTS: u32 = 3;
/// How long to rest in between.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What comes from other threads and nodes.
pub enum Learned {
    /// The ids of some of a segment's entries.
    Ids(SegmentId, Batch),
    /// What the other members have decided.
    Told(Told),
}

/// Follows the ids of every segment, whatever slots the node has.
pub struct Learning {
    feed: Arc<dyn Feed>,
    requests: Requests,
    streams: Streams,
    /// What the other members are asked while something cannot be learned any more.
    asked: Option<BoxFuture<'static, Told>>,
    attempts: u32,
    /// Told whenever more is decided.
    decided: watch::Sender<Arc<Decided>>,
}

/// Ids as they come, from each segment by a stream of its own.
struct Streams {
    open: BTreeMap<SegmentId, AbortOnDropHandle<()>>,
    sender: mpsc::Sender<Result<(SegmentId, Batch), JournalError>>,
    received: mpsc::Receiver<Result<(SegmentId, Batch), JournalError>>,
}

impl Streams {
    fn none() -> Streams {
        let (sender, received) = mpsc::channel(BATCHES_MAX);
        Streams { open: BTreeMap::new(), sender, received }
    }
}

impl Learning {
    /// Goes on from what was decided, and tells `decided` what is from then on.
    pub fn new(
        feed: Arc<dyn Feed>,
        recorded: Decided,
        decided: watch::Sender<Arc<Decided>>,
    ) -> Learning {
        let recorded = Arc::new(recorded);
        decided.send_replace(Arc::clone(&recorded));
        let (requests, streams) = (Requests::new(recorded), Streams::none());
        Learning { feed, requests, streams, asked: None, attempts: 0, decided }
    }

    /// What is decided.
    pub fn decided(&self) -> &Arc<Decided> {
        self.requests.decided()
    }

    /// Waits for what comes next. Nothing is lost if that is given up.
    ///
    /// # Errors
    /// When this node's own journal cannot be read.
    pub async fn next(&mut self) -> Result<Learned, JournalError> {
        let Learning { asked, streams, .. } = self;
        let told = async {
            match asked {
                Some(asked) => asked.await,
                None => pending().await,
            }
        };
        tokio::select! {
            told = told => Ok(Learned::Told(told)),
            Some(learned) = streams.received.recv() => {
                learned.map(|(segment, batch)| Learned::Ids(segment, batch))
            }
        }
    }

    /// Takes what came.
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn take(&mut self, learned: Learned, facts: &Facts) -> Result<(), FlushError> {
        match learned {
            Learned::Ids(segment, batch) => self.requests.take(segment, &batch),
            Learned::Told(told) => {
                self.settle(told, facts);
                Ok(())
            }
        }
    }

    /// Decides up to the newest cut, or as far as everything came, and says whether on more
    /// than before. Follows what is to come.
    pub fn decide(&mut self, facts: &Facts) -> bool {
        let before = self.decided().cut;
        if self.asked.is_none() {
            match self.requests.decide(facts) {
                Progress::Decided => self.follow(facts),
                Progress::Gap => self.ask(),
            }
        }
        let is_more = self.decided().cut > before;
        if is_more {
            self.decided.send_replace(Arc::clone(self.requests.decided()));
        }
        is_more
    }

    fn follow(&mut self, facts: &Facts) {
        let Learning { feed, requests, streams, .. } = self;
        streams.open.retain(|segment, _| facts.segments().contains_key(segment));
        for &segment in facts.segments().keys() {
            streams.open.entry(segment).or_insert_with(|| {
                let from = Position { segment, index: requests.next(segment) };
                let ids = feed.follow(from, SlotSet::default());
                let ids = ids.map(move |batch| batch.map(|batch| (segment, batch)));
                AbortOnDropHandle::new(tokio::spawn(pass_on(ids, streams.sender.clone())))
            });
        }
    }

    /// Asks the other members. What comes meanwhile may not follow on what they say.
    fn ask(&mut self) {
        self.streams = Streams::none();
        let (rest, told) = (AGAIN_AFTER * self.attempts.min(1), self.feed.decided());
        self.attempts += 1;
        self.asked = Some(sleep(rest).then(|()| told).boxed());
    }

    /// Goes on from what another member has decided, or without what nobody knows.
    fn settle(&mut self, Told { decided, is_all }: Told, facts: &Facts) {
        self.asked = None;
        let own = self.decided().cut;
        let newer = decided.into_iter().filter(|decided| decided.cut > own);
        let best = newer.max_by_key(|decided| (decided.can_go_on(facts), decided.cut));
        let is_whole = best.as_ref().is_some_and(|best| best.can_go_on(facts));
        if !is_whole && !is_all && self.attempts < ATTEMPTS {
            return self.ask();
        }
        self.attempts = 0;
        if let Some(best) = best {
            info!(from = own, to = best.cut, "another member told which requests there were");
            self.requests = Requests::new(Arc::new(best));
        }
        if !is_whole {
            if !is_all {
                warn!(
                    cut = self.decided().cut,
                    "nobody tells which requests there were since; one \
                    that was sent again may count twice"
                );
            }
            self.requests.pass_gaps(facts);
        }
    }
}
