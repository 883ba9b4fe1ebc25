//! Merged statistics: the results of all slots, from whoever has them, added up.

mod part; // what one node has of them

use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use sheaf_proto::statistics::WindowCounts;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::aggregation::distinct_logs::count_table::{self, MalformedTable, Merged, Table};
use crate::blocking::{self, Interrupted};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::windows::WindowFact;
use crate::cluster::lending::Lending;
use crate::cluster::live::{self, Live};
use crate::cluster::peers::{self, PeerError};
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::failpoint::is_to_fail;
use crate::flush::results::{Results, SlotResults};
use crate::flush::statistics::statistics;
use crate::flush::{Aggregation, FlushError, aggregations};
use crate::store::StoreError;

/// How long a member may take to say which results it has, or to begin to send them.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Chunks of one table that wait to be merged.
const CHUNKS_MAX: usize = 4;

/// Why the results of a window could not be added up.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The facts do not know the window, or not that it is complete.
    #[error("the window is not complete, or too old")]
    Incomplete,
    /// Nobody who was reached has the results of some slots.
    #[error("nobody who was reached has the results of slots {slots}")]
    Missing {
        /// The slots.
        slots: SlotSet,
        /// Who was reached, this node included.
        reached: BTreeSet<NodeId>,
    },
    /// What was added up is not what was claimed.
    #[error("the results are not those that were claimed; please report this")]
    Mismatch,
    /// This node's database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A member did not send what it has.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A table is damaged.
    #[error(transparent)]
    Malformed(#[from] MalformedTable),
    /// The definition of the aggregation cannot be read.
    #[error(transparent)]
    Definition(#[from] FlushError),
    /// The node is about to end.
    #[error("interrupted")]
    Interrupted(#[from] Interrupted),
}

/// Adds up results; cheap to clone.
#[derive(Clone)]
pub struct Gathering {
    /// This node.
    pub node: NodeId,
    /// The results that it has.
    pub results: Results,
    /// The ways to the other members.
    pub members: peers::Member,
    /// Which windows there are, and what was claimed of them.
    pub facts: watch::Receiver<Arc<Facts>>,
}

/// Results that somebody has.
struct Held {
    node: NodeId,
    slots: SlotSet,
    summary: Option<WindowCounts>,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Here(Box<SlotResults>),
    There { node: NodeId, address: String, table: u64 },
}

/// The chunks of a table, wherever they come from.
type Chunks = Box<dyn Iterator<Item = Result<Bytes, GatherError>> + Send>;

impl Gathering {
    /// What was counted in a window that every slot was flushed for, with at most `limit`
    /// values. Results that are recorded as lost are left out.
    ///
    /// # Errors
    /// When a slot was not flushed, or not all results are reached.
    pub async fn counts(
        &self,
        number: u32,
        window: Window,
        limit: usize,
    ) -> Result<WindowCounts, GatherError> {
        let facts = self.facts.borrow().clone();
        let fact = flushed(&facts, number, window).ok_or(GatherError::Incomplete)?;
        let (held, reached) = self.held(&facts, number, window).await?;
        if let Some(summary) = summary(&held) {
            let counted = (summary.records, summary.distinct);
            let is_claimed = counted == (fact.records, fact.distinct);
            return if is_claimed { Ok(summary) } else { Err(GatherError::Mismatch) };
        }
        let all = SlotSet::all(SLOTS as u16);
        let missing = held.iter().fold(all, |missing, held| missing.difference(&held.slots));
        let slots = missing.difference(&fact.lost_slots());
        if !slots.is_empty() && !is_to_fail("planted-absent-is-empty") {
            return Err(GatherError::Missing { slots, reached });
        }
        // What an owner has may be superseded too, if it did not own the slots for a while.
        let nodes: BTreeSet<_> = held.iter().map(|held| held.node).collect();
        let mut tried = Vec::new();
        for doubted in iter::once(None).chain(nodes.into_iter().map(Some)) {
            let chosen = choose(&held, &facts, all, doubted);
            if tried.contains(&chosen) {
                continue;
            }
            let merged = self.merge(number, window, &held, &chosen, fact.records, limit).await?;
            if !missing.is_empty() || is_claimed(&merged, &fact) {
                let known = aggregations(&facts)?.into_iter().find(|known| known.number == number);
                let Aggregation { definition, .. } = known.ok_or(GatherError::Incomplete)?;
                return Ok(statistics(&definition, window, merged.counts));
            }
            debug!(%window, ?doubted, "what was added up is not what was claimed");
            tried.push(chosen);
        }
        Err(GatherError::Mismatch)
    }

    /// What was counted in a window of which something is missing, as far as it is reached,
    /// with at most `limit` values.
    ///
    /// # Errors
    /// When this node's database fails, or the aggregation is not known.
    pub async fn partial(
        &self,
        number: u32,
        window: Window,
        own: &Lending,
        limit: usize,
    ) -> Result<WindowCounts, GatherError> {
        let facts = self.facts.borrow().clone();
        let known = aggregations(&facts)?.into_iter().find(|known| known.number == number);
        let definition = known.ok_or(GatherError::Incomplete)?.definition;
        let all = SlotSet::all(SLOTS as u16);
        let fact = facts.window(number, window);
        let waiting = fact.map_or(all, |fact| fact.waiting);
        let flushed = all.iter().filter(|&slot| !waiting.contains(slot)).collect();
        let (held, _) = self.held(&facts, number, window).await?;
        if let Some(summary) = summary(&held) {
            return Ok(summary);
        }
        let chosen = choose(&held, &facts, flushed, None);
        let (records, values_max) = (fact.map_or(0, |fact| fact.records), live::VALUES_MAX);
        let merged = self.merge(number, window, &held, &chosen, records, values_max).await?;
        let flushed = statistics(&definition, window, merged.counts);
        let mut live = self.live_of_others(values_max, ANSWER_WAIT).await;
        live.push(own.live(values_max).await);
        let name = definition.name.as_str();
        let is_of = |part: &WindowCounts| {
            part.aggregation == name && part.window.start == window.start.timestamp()
        };
        let open = live.into_iter().flat_map(|live| live.windows).filter(is_of);
        let sum = live::add_up(open.chain([flushed]), limit).pop();
        sum.ok_or(GatherError::Incomplete)
    }

    /// What the other members have at the moment, of those that answer within a time.
    pub async fn live_of_others(&self, limit: usize, within: Duration) -> Vec<Live> {
        let facts = self.facts.borrow().clone();
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let asked = self.others(&facts).map(|(node, address)| async move {
            let live = self.members.other(node, address).live(limit, within).await;
            let live = live
                .map_err(|error| error.to_string())
                .and_then(|live| serde_json::from_slice(&live).map_err(|error| error.to_string()));
            live.inspect_err(|error| debug!(%node, error, "a member does not say what it has"))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// The other members that are not gone, and where they are reached.
    fn others<'a>(&self, facts: &'a Facts) -> impl Iterator<Item = (NodeId, &'a str)> + use<'a> {
        let own = self.node;
        let others = facts.staying().filter(move |(node, _)| *node != own);
        others.map(|(node, member)| (node, member.address.as_str()))
    }

    /// What was chosen of these results, in one: of so many accepted records, with at most `limit`
    /// values.
    async fn merge(
        &self,
        number: u32,
        window: Window,
        held: &[Held],
        chosen: &[(usize, SlotSet)],
        records: u64,
        limit: usize,
    ) -> Result<Merged, GatherError> {
        let mut tables = Vec::new();
        for &(place, slots) in chosen {
            let chunks = self.chunks(number, window, slots, held[place].place.clone()).await?;
            tables.push(Table { slots, chunks });
        }
        let merging = blocking::run(move || count_table::merge(tables, records, limit));
        merging.await?.map_err(|error| error.source)
    }

    /// Which results there are, those of this node first, and who says so.
    async fn held(
        &self,
        facts: &Facts,
        number: u32,
        window: Window,
    ) -> Result<(Vec<Held>, BTreeSet<NodeId>), GatherError> {
        let here = self.results.find(number, window.end)?.into_iter().map(|result| Held {
            node: self.node,
            slots: result.slots,
            summary: result.summary.clone(),
            place: Place::Here(Box::new(result)),
        });
        let mut held: Vec<_> = here.collect();
        let mut nodes = BTreeSet::from([self.node]);
        if held.iter().any(|held| held.slots.len() == SLOTS) {
            return Ok((held, nodes));
        }
        let asked = self.others(facts).map(|(node, address)| async move {
            let listed = self.members.other(node, address).tables(number, window.end, ANSWER_WAIT);
            (node, address, listed.await)
        });
        for (node, address, listed) in join_all(asked).await {
            match listed {
                Ok(tables) => {
                    nodes.insert(node);
                    held.extend(tables.into_iter().map(|listed| Held {
                        node,
                        slots: listed.slots,
                        summary: listed.summary,
                        place: Place::There {
                            node,
                            address: address.to_owned(),
                            table: listed.table,
                        },
                    }));
                }
                Err(error) => debug!(%node, %error, "a member does not say which results it has"),
            }
        }
        Ok((held, nodes))
    }

    async fn chunks(
        &self,
        number: u32,
        window: Window,
        slots: SlotSet,
        place: Place,
    ) -> Result<Chunks, GatherError> {
        match place {
            Place::Here(result) => {
                let results = self.results.clone();
                Ok(Box::new(
                    results.chunks(number, window.end, *result).map(|chunk| Ok(chunk?.into())),
                ))
            }
            Place::There { node, address, table } => {
                let named = (number, window.end, table);
                let sent = self.members.other(node, &address).results(named, slots, ANSWER_WAIT);
                let mut sent = sent.await?.map_err(GatherError::from);
                if blocking::is_alone() {
                    let all: Vec<_> = sent.collect().await;
                    return Ok(Box::new(all.into_iter()));
                }
                let (to, mut received) = mpsc::channel(CHUNKS_MAX);
                tokio::spawn(async move {
                    while let Some(chunk) = sent.next().await {
                        if to.send(chunk).await.is_err() {
                            return;
                        }
                    }
                });
                Ok(Box::new(iter::from_fn(move || received.blocking_recv())))
            }
        }
    }
}

/// What all slots add up to, if somebody has that.
fn summary(held: &[Held]) -> Option<WindowCounts> {
    let mut whole = held.iter().filter(|held| held.slots.len() == SLOTS);
    whole.find_map(|held| held.summary.clone())
}

/// Whose results of which of these slots are taken, as far as there are any: of an owner before
/// anybody else, and of a node that is doubted only what nobody else has.
fn choose(
    held: &[Held],
    facts: &Facts,
    slots: SlotSet,
    doubted: Option<NodeId>,
) -> Vec<(usize, SlotSet)> {
    let (doubted, others): (Vec<_>, Vec<_>) =
        held.iter().enumerate().partition(|(_, held)| Some(held.node) == doubted);
    // What another node has may be of a claim that was superseded after a loss.
    let owned = others
        .iter()
        .map(|&(place, held)| (place, held.slots.intersection(&facts.owner_of(held.node))));
    let any = others.iter().chain(&doubted).map(|&(place, held)| (place, held.slots));
    let (mut missing, mut chosen) = (slots, Vec::new());
    for (place, slots) in owned.chain(any) {
        let slots = slots.intersection(&missing);
        missing = missing.difference(&slots);
        if !slots.is_empty() {
            chosen.push((place, slots));
        }
    }
    chosen
}

/// What the facts say of a window that every slot was flushed for.
fn flushed(facts: &Facts, number: u32, window: Window) -> Option<WindowFact> {
    let fact = facts.window(number, window)?;
    (fact.end == window.end && fact.waiting.is_empty()).then(|| fact.clone())
}

/// Whether this is what the slots' primaries have claimed.
fn is_claimed(merged: &Merged, fact: &WindowFact) -> bool {
    let digest = merged.slots.iter().fold(0_u128, |sum, slot| sum.wrapping_add(slot.digest));
    let distinct: u64 = merged.slots.iter().map(|slot| slot.distinct).sum();
    let is_same = (distinct, digest) == (fact.distinct, fact.digest.0);
    is_same || is_to_fail("planted-absent-is-empty")
}

#[cfg(test)]
mod tests;
