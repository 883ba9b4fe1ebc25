//! Rebuilt files for readers: any node answers for the whole cluster, and asks those that have
//! them. Who is asked answers with what is on its own disk, and asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{BoxStream, StreamExt as _};
use sheaf_proto::files::{FilesWaitFor, RebuiltFile, RebuiltFiles};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::blocking;
use crate::checkpoint::Digest;
use crate::checkpoint::facts::{Facts, Slot};
use crate::cluster::lending::Lending;
use crate::cluster::peers::{self, FilePiece, Holdings as _, Told, Wanted};
use crate::event::chunk::StreamId;
use crate::event::fingerprint::{FingerprintKey, SLOTS, slot_of};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::flush::files::{Named, Shown};

/// How long an owner may take to look through all of its files ..
const LIST_WAIT: Duration = Duration::from_secs(4);
/// .. to find one of them, or to begin to send it.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Files that are read through this node at a time. There are 128 streams to another node, which
/// needs most of them to fold.
pub const READERS_MAX: usize = 32;

/// Finds and reads files; cheap to clone.
#[derive(Clone)]
pub struct Reading {
    own: Lending,
    members: peers::Member,
    key: FingerprintKey,
    places: Arc<Semaphore>,
}

/// Which files are listed.
#[derive(Clone, Debug)]
pub struct Query {
    /// What they are called.
    pub which: Which,
    /// The id and the session that they come after.
    pub after: Option<(String, u64)>,
    /// How many at most.
    pub limit: usize,
}

/// What files are called.
#[derive(Clone, Debug)]
pub enum Which {
    /// Their ids begin so.
    Prefix(String),
    /// This is their id.
    Id(StreamId),
}

/// A file that somebody has.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub file: RebuiltFile,
    /// Of all chunks that can be read.
    pub digest: Digest,
    /// Who may have more of it, and does not answer.
    pub waits_for: Option<NodeId>,
    aggregation: u32,
    id: StreamId,
    /// Who has it, and where that is reached; `None` if it is here.
    holder: Option<(NodeId, String)>,
}

/// A part of a file. It is cut off by an error.
pub type Content = BoxStream<'static, Result<Bytes, Unread>>;

/// Why no more of a file comes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unread(String);

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nobody collects files.
    #[error("no aggregation of the type LogFiles is set up")]
    NotSetUp,
    /// No file is called so.
    #[error("there is no file with the id {id}")]
    UnknownId {
        /// The id.
        id: StreamId,
    },
    /// Files are called so, but this one is not there.
    #[error("{id} has no session {session}")]
    UnknownSession {
        /// The id.
        id: StreamId,
        /// The session.
        session: u64,
    },
    /// No owner answers who could tell.
    #[error("who has the files of slot {slot} does not answer: {nodes}")]
    Unanswered {
        /// The file's slot.
        slot: Slot,
        /// The slot's owners.
        nodes: String,
    },
    /// The node has too much to do.
    #[error("{READERS_MAX} files are being read through this node: come back, or ask another one")]
    TooMany,
    /// What is on the node's own disk cannot be read.
    #[error("{0}")]
    Failed(String),
}

impl Reading {
    /// What this node has and what it can reach, whose ids are hashed under the key.
    pub fn new(own: Lending, members: peers::Member, key: FingerprintKey) -> Reading {
        Reading { own, members, key, places: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    fn facts(&self) -> Arc<Facts> {
        self.own.facts.borrow().clone()
    }

    fn node(&self) -> NodeId {
        self.own.keeping.node
    }

    /// The cluster's files: of each slot what its primary has, or, if that is silent, another
    /// owner.
    pub async fn list(&self, query: &Query) -> RebuiltFiles {
        let facts = self.facts();
        let Some(wanted) = self.wanted(&facts, query) else { return nothing() };
        let (mut left, mut led, mut files) = (wanted.slots, SlotSet::default(), Vec::new());
        for rank in 0.. {
            let asked = owners(&facts, &left, rank);
            if asked.is_empty() {
                break;
            }
            let asked = asked.into_iter().map(|(node, slots)| {
                let wanted = Wanted { slots, ..wanted.clone() };
                let facts = &facts;
                async move { (node, self.ask(facts, node, wanted, LIST_WAIT).await) }
            });
            for (node, told) in join_all(asked).await {
                match told {
                    Ok(told) => {
                        left = left.difference(&told.slots);
                        led = led.union(&told.led);
                        files.extend(told.files.into_iter().map(|shown| shown.file));
                    }
                    Err(error) => debug!(%node, error, "a member does not tell of its files"),
                }
            }
        }
        let behind = wanted.slots.difference(&led);
        let waits_for = (!behind.is_empty()).then(|| waits_for(&facts, &behind, &left));
        page(files, query.limit, waits_for)
    }

    /// The files on this node's disk, whoever leads their slots.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn list_here(&self, query: &Query) -> Result<RebuiltFiles, ReadError> {
        let Some(wanted) = self.wanted(&self.facts(), query) else { return Ok(nothing()) };
        let files = self.here(wanted).await?.into_iter().map(|shown| shown.file);
        Ok(page(files.collect(), query.limit, None))
    }

    /// Finds a file: where its slot's primary has it, or, if that is silent, another owner.
    ///
    /// # Errors
    /// When there is none, or nobody answers who could tell.
    pub async fn find(&self, id: &StreamId, session: u64) -> Result<Found, ReadError> {
        let facts = self.facts();
        let (slot, wanted) = self.one(&facts, id, Some(session))?;
        let owners = facts.slots().get(&slot).map(|slot| slot.owners.as_slice());
        let owners = owners.unwrap_or_default();
        for &node in owners {
            let told = match self.ask(&facts, node, wanted.clone(), ANSWER_WAIT).await {
                Ok(told) => told,
                Err(error) => {
                    debug!(%node, error, "an owner does not tell of a file");
                    continue;
                }
            };
            let is_led = told.led.contains(slot);
            let first = told.files.into_iter().next();
            if let Some(Shown { file, digest }) = first.filter(|it| it.file.session == session) {
                let waits_for = owners.first().copied().filter(|_| !is_led);
                let holder = self.address(&facts, node).map(|address| (node, address));
                let (aggregation, id) = (wanted.aggregation, id.clone());
                return Ok(Found { file, digest, waits_for, aggregation, id, holder });
            }
            if is_led {
                let (_, any) = self.one(&facts, id, None)?;
                let told = self.ask(&facts, node, any, ANSWER_WAIT).await;
                let is_known = told.is_ok_and(|told| !told.files.is_empty());
                return Err(unknown(id, session, is_known));
            }
        }
        let nodes: Vec<_> = owners.iter().map(|node| format!("node {node}")).collect();
        Err(ReadError::Unanswered { slot, nodes: nodes.join(", ") })
    }

    /// Finds a file on this node's disk, whoever leads its slot.
    ///
    /// # Errors
    /// When it is not there, or the database cannot be read.
    pub async fn find_here(&self, id: &StreamId, session: u64) -> Result<Found, ReadError> {
        let facts = self.facts();
        let (_, wanted) = self.one(&facts, id, Some(session))?;
        let aggregation = wanted.aggregation;
        let first = self.here(wanted).await?.into_iter().next();
        if let Some(Shown { file, digest }) = first.filter(|it| it.file.session == session) {
            let (id, holder, waits_for) = (id.clone(), None, None);
            return Ok(Found { file, digest, waits_for, aggregation, id, holder });
        }
        let (_, any) = self.one(&facts, id, None)?;
        Err(unknown(id, session, !self.here(any).await?.is_empty()))
    }

    /// A part of a file, which is to be among the bytes that were found. While nobody takes what
    /// comes, no more is asked for.
    ///
    /// # Errors
    /// When too many are being read, or whoever has the file does not begin to send it.
    pub async fn read(&self, found: Found, part: Range<u64>) -> Result<Content, ReadError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| ReadError::TooMany)?;
        let Found { file, aggregation, id, holder, .. } = found;
        let slot = slot_of(self.key.string(id.as_str().as_bytes()));
        let piece = FilePiece { aggregation, id, session: file.session, part };
        let content = match holder {
            None => {
                let own = self.own.read(piece);
                let own = own.map_err(|error| ReadError::Failed(error.to_string()))?;
                own.map(|bytes| bytes.map_err(|error| Unread(error.to_string()))).boxed()
            }
            Some((node, address)) => {
                let sent = self.members.other(node, &address).read(&piece, ANSWER_WAIT).await;
                let sent = sent.map_err(|error| {
                    debug!(%node, %error, "an owner does not send a file");
                    ReadError::Unanswered { slot, nodes: format!("node {node}") }
                });
                sent?.map(|bytes| bytes.map_err(|error| Unread(error.to_string()))).boxed()
            }
        };
        let counted = content.map(move |bytes| {
            let _held = &place;
            bytes
        });
        Ok(counted.boxed())
    }

    /// One more than is shown, so that it is known whether there is one; `None` if nobody
    /// collects files.
    fn wanted(&self, facts: &Facts, query: &Query) -> Option<Wanted> {
        let Query { which, after, limit } = query.clone();
        let named = match which {
            Which::Prefix(prefix) => Named::Prefix(prefix),
            Which::Id(id) => Named::Hash(self.key.string(id.as_str().as_bytes())),
        };
        let slots = SlotSet::all(SLOTS as u16).iter().filter(|&slot| named.may_be_in(slot));
        let (aggregation, slots) = (rebuilding(facts)?, slots.collect());
        Some(Wanted { aggregation, slots, named, after, limit: limit.saturating_add(1) })
    }

    /// The first file of an id, from a session on if one is given, and its slot.
    fn one(
        &self,
        facts: &Facts,
        id: &StreamId,
        session: Option<u64>,
    ) -> Result<(Slot, Wanted), ReadError> {
        let hash = self.key.string(id.as_str().as_bytes());
        let before = session.and_then(|session| session.checked_sub(1));
        let wanted = Wanted {
            aggregation: rebuilding(facts).ok_or(ReadError::NotSetUp)?,
            slots: [slot_of(hash)].into_iter().collect(),
            named: Named::Hash(hash),
            after: before.map(|before| (id.as_str().to_owned(), before)),
            limit: 1,
        };
        Ok((slot_of(hash), wanted))
    }

    /// What a member has.
    async fn ask(
        &self,
        facts: &Facts,
        node: NodeId,
        wanted: Wanted,
        within: Duration,
    ) -> Result<Told, String> {
        match self.address(facts, node) {
            None => self.own.list(wanted).await.map_err(|error| error.to_string()),
            Some(address) => {
                let told = self.members.other(node, &address).list(&wanted, within).await;
                told.map_err(|error| error.to_string())
            }
        }
    }

    /// Where another member is reached.
    fn address(&self, facts: &Facts, node: NodeId) -> Option<String> {
        let other = facts.members().get(&node).filter(|_| node != self.node());
        other.map(|member| member.address.clone())
    }

    async fn here(&self, wanted: Wanted) -> Result<Vec<Shown>, ReadError> {
        let files = self.own.keeping.fetching.files.clone();
        let listing = blocking::run(move || files.list(&wanted));
        let failed = |error: &dyn std::error::Error| ReadError::Failed(error.to_string());
        listing.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}

/// The aggregation that rebuilds files; of several, the newest.
fn rebuilding(facts: &Facts) -> Option<u32> {
    facts.rebuilding().next_back().map(|(number, _)| number)
}

/// By owner, the slots of which it is the one of that rank, from 0 for the primary.
fn owners(facts: &Facts, slots: &SlotSet, rank: usize) -> BTreeMap<NodeId, SlotSet> {
    let mut owners: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
    for slot in slots.iter() {
        let owner = facts.slots().get(&slot).and_then(|slot| slot.owners.get(rank));
        if let Some(&owner) = owner {
            owners.entry(owner).or_default().insert(slot);
        }
    }
    owners
}

fn waits_for(facts: &Facts, behind: &SlotSet, missing: &SlotSet) -> FilesWaitFor {
    let primary = |slot| facts.slots().get(&slot).and_then(|slot| slot.owners.first().copied());
    let nodes: BTreeSet<_> = behind.iter().filter_map(primary).map(|node| node.0).collect();
    FilesWaitFor {
        slots: behind.to_string(),
        missing: missing.to_string(),
        nodes: nodes.into_iter().collect(),
    }
}

fn nothing() -> RebuiltFiles {
    page(Vec::new(), 0, None)
}

/// The first files, and where they go on.
fn page(
    mut files: Vec<RebuiltFile>,
    limit: usize,
    waits_for: Option<FilesWaitFor>,
) -> RebuiltFiles {
    files.sort_by(|one, other| (&one.id, one.session).cmp(&(&other.id, other.session)));
    let has_more = files.len() > limit;
    files.truncate(limit);
    let next = files.last().filter(|_| has_more);
    let next = next.map(|last| format!("{}/{}", last.session, last.id));
    RebuiltFiles { complete: waits_for.is_none(), waits_for, files, next }
}

fn unknown(id: &StreamId, session: u64, is_known: bool) -> ReadError {
    let id = id.clone();
    if is_known { ReadError::UnknownSession { id, session } } else { ReadError::UnknownId { id } }
}

#[cfg(test)]
mod tests;
