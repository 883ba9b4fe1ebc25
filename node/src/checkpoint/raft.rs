//! Consensus over the cluster's facts. This module alone names `openraft`.
//!
//! The leader takes a command, a majority of the voters makes it durable, and every
//! member applies it to its own copy of the [`Facts`]. The facts live in memory: a node
//! that starts takes them from its newest snapshot and applies the committed entries
//! after it again.

mod errors; // why a node does not take part, or a proposal has no effect
mod log; // entries and vote, durable
mod machine; // entries in, facts out; snapshots
mod network; // calls between members
mod record; // a checksum around each stored record
mod status; // what a node knows of its part

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{Fatal, RaftError};
use openraft::impls::ProgressResponder;
use openraft::impls::leader_id_std::LeaderId;
use openraft::rt::deterministic_rng::DeterministicRng;
use openraft::{ChangeMembers, Config, Instant as _, ReadPolicy, SnapshotPolicy};
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::refused::Refused;
use crate::event::node::NodeId;
use crate::store::Store;
pub use errors::{ProposeError, StartError, Stopped};
use log::Log;
use machine::Machine;
use network::Network;
pub use network::{Rpc, Transport, TransportError};
use record::Records;
pub use record::{Damage, Record, RecordError};
pub use status::Status;

/// How often the leader says that it is there.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// A voter that has not heard of the leader for a random time between this ..
const ELECTION_MIN: Duration = Duration::from_millis(350);
/// .. and this, once it has not for the longest of these times, wants to lead itself.
const ELECTION_MAX: Duration = Duration::from_millis(600);
/// A leader that reaches no majority is silent for this long at a time. Where only its
/// own calls get through, this lets the others elect one that gets answers.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a majority may take to decide.
pub const DECISION_WAIT: Duration = Duration::from_secs(5);
/// How long a member may take to receive and store a snapshot.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(30);
/// Entries between two snapshots.
const SNAPSHOT_ENTRIES: u64 = 500;
/// Entries in the newest snapshot that stay in the log, for members that are a little late.
const ENTRIES_KEPT: u64 = 100;
/// What may wait between Raft's own parts: there are few commands, and each place takes
/// memory from the start.
const QUEUE_LENGTH: u64 = 256;
/// Entries in one message.
const MESSAGE_ENTRIES_MAX: u64 = 100;

// One lost heartbeat, or two, must not cost the leader its place.
const _: () = assert!(3 * HEARTBEAT.as_millis() < ELECTION_MIN.as_millis());
const _: () = assert!(ELECTION_MIN.as_millis() < ELECTION_MAX.as_millis());
const _: () = assert!(SILENCE.as_millis() >= 2 * ELECTION_MAX.as_millis());
// There is time for an election, and for another one.
const _: () = assert!(DECISION_WAIT.as_millis() > 2 * ELECTION_MAX.as_millis());

/// A period between two elections; at most one node leads in it.
pub type Term = u64;

/// Tokio, with random numbers from a seed, so that a simulation can be run again.
type Runtime = DeterministicRng<TokioRuntime>;

/// What a command did; `None` for an entry that is Raft's own.
type Answer = Option<Result<Applied, Refused>>;

openraft::declare_raft_types!(
    /// What Raft is made of here. A term has one leader at most, as in the Raft paper.
    TypeConfig:
        D = Command,
        R = Answer,
        NodeId = NodeId,
        Node = String,
        Term = Term,
        LeaderId = LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Runtime,
);

/// What `openraft` shows of an entry when it logs what it does.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

type Entry = EntryOf<TypeConfig>;
type LogId = LogIdOf<TypeConfig>;
type Membership = StoredMembershipOf<TypeConfig>;
type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
type Vote = VoteOf<TypeConfig>;

/// What a node has to know before it takes part.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who it is. An id belongs to one log for ever: a node that comes back with an
    /// empty log needs a new one, or two leaders may be elected in one term.
    pub id: NodeId,
    /// What its election timeouts are drawn from, different on each node: a random
    /// number, or in a simulation a fixed one.
    pub seed: u64,
    /// The facts of a cluster in which nothing has happened: the same on every node.
    pub initial_facts: Facts,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub id: NodeId,
    /// Where it is reached, as the transport understands it.
    pub address: String,
}

/// What the cluster decided on a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The index of the command's entry, the same on every node.
    pub index: u64,
    /// What the command did, or why it was refused.
    pub outcome: Result<Applied, Refused>,
}

/// This node's part in the cluster; clones share it.
#[derive(Clone)]
pub struct Raft {
    core: openraft::Raft<TypeConfig, Machine>,
    facts: watch::Receiver<Arc<Facts>>,
    store_in_use: Arc<watch::Sender<()>>,
}

impl Raft {
    /// Takes part as `settings.id`, with what `store` holds from earlier lives. An empty
    /// node waits until it is a member: by [`Raft::initialize`], or because the leader
    /// of a cluster adds it.
    ///
    /// # Errors
    /// When the database fails or any record of Raft's is damaged; the error names it.
    pub async fn start(
        settings: Settings,
        store: Arc<Store>,
        transport: Arc<dyn Transport>,
    ) -> Result<Raft, StartError> {
        let reason = |error: &dyn std::error::Error| StartError::Raft { reason: error.to_string() };
        let (records, store_in_use) = Records::new(store);
        let log = Log::open(records.clone())?;
        let machine = Machine::open(records, settings.initial_facts)?;
        let facts = machine.facts();
        let network = Network { own: settings.id, transport };
        let config = Arc::new(config().validate().map_err(|error| reason(&error))?);
        let starting = openraft::Raft::new(settings.id, config, network, log, machine);
        let core = Runtime::scope(settings.seed, starting).await.map_err(|error| reason(&error))?;
        // When it answers, its status is more than the initial one.
        core.is_initialized().await.map_err(|error| reason(&error))?;
        Ok(Raft { core, facts, store_in_use: Arc::new(store_in_use) })
    }

    /// Whether this node has ever been part of a cluster.
    ///
    /// # Errors
    /// When Raft has stopped.
    pub async fn is_initialized(&self) -> Result<bool, Stopped> {
        Ok(self.core.is_initialized().await?)
    }

    /// Forms a cluster whose voters are `members`. Any of them may be asked to, also several,
    /// as long as all are asked the same. All of them must be empty.
    ///
    /// # Errors
    /// [`ProposeError::Membership`] when this node is not empty or not one of them.
    pub async fn initialize(&self, members: Vec<Member>) -> Result<(), ProposeError> {
        let members = members.into_iter().map(|Member { id, address }| (id, address));
        decided(self.core.initialize(BTreeMap::from_iter(members))).await
    }

    /// Has the cluster apply `command`, and returns what it did. This node's facts
    /// contain it by then.
    ///
    /// # Errors
    /// As [`ProposeError`] says. After [`ProposeError::Undecided`] the command may have
    /// been applied: whoever proposes it again makes sure that twice does no harm.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.decide(command).await?.outcome.map_err(ProposeError::Refused)
    }

    /// As [`Raft::propose`], and says at which index the cluster decided: another node's
    /// facts contain it after [`Raft::until_applied`].
    ///
    /// # Errors
    /// As [`ProposeError`] says; a refusal is a decision.
    pub async fn decide(&self, command: Command) -> Result<Decision, ProposeError> {
        let written = decided(self.core.client_write(command)).await?;
        // Only entries of Raft's own have no answer.
        let outcome = written.data.ok_or(ProposeError::Undecided)?;
        Ok(Decision { index: written.log_id.index, outcome })
    }

    /// As [`Raft::propose`], if this node still leads in `term`: what a leader has found out
    /// may be wrong once another has led.
    ///
    /// # Errors
    /// As [`Raft::propose`].
    pub async fn propose_in(&self, term: Term, command: Command) -> Result<Applied, ProposeError> {
        let (responder, written) = ProgressResponder::complete_only();
        let writing = async {
            self.core.write(command).with_leader(term).responder(responder).await?;
            let written = written.await.map_err(|_| Fatal::Stopped)?;
            written.map_err(RaftError::APIError)
        };
        let outcome = decided(writing).await?.data.ok_or(ProposeError::Undecided)?;
        outcome.map_err(ProposeError::Refused)
    }

    /// Adds a member that learns and does not vote. It catches up from then on:
    /// [`Status::replicated`] tells how far it is.
    ///
    /// # Errors
    /// As [`ProposeError`] says; adding it again is harmless.
    pub async fn add_learner(&self, member: Member) -> Result<(), ProposeError> {
        let Member { id, address } = member;
        decided(self.core.add_learner(id, address, false)).await.map(drop)
    }

    /// Makes `voters` the only voters; those who were and are not named learn from now
    /// on. A new voter must have caught up, or the cluster may wait for it.
    ///
    /// # Errors
    /// As [`ProposeError`] says; [`ProposeError::Membership`] also when the leader itself
    /// would not vote any more: it hands the lead on before. The change takes two
    /// entries: after [`ProposeError::Undecided`] it may be half done, and asking again
    /// completes it.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ProposeError> {
        let own = self.core.node_id();
        if self.leading().is_some() && !voters.contains(own) {
            let reason = format!("node {own} leads: hand the lead on before it loses its vote");
            return Err(ProposeError::Membership { reason });
        }
        let change = ChangeMembers::ReplaceAllVoters(voters);
        decided(self.core.change_membership(change, true)).await.map(drop)
    }

    /// Removes a member that does not vote, for good.
    ///
    /// # Errors
    /// As [`ProposeError`] says.
    pub async fn remove_learner(&self, id: NodeId) -> Result<(), ProposeError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        decided(self.core.change_membership(change, true)).await.map(drop)
    }

    /// Hands the lead to the voter `to`, and returns when it has it.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] on another node than the leader, and
    /// [`ProposeError::Membership`] when `to` does not vote, or did not take the lead in
    /// time; whoever the voters agree on leads then.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), ProposeError> {
        let status = self.status();
        if !status.leads() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if !status.voters.contains(&to) {
            let reason = format!("node {to} does not vote");
            return Err(ProposeError::Membership { reason });
        }
        if status.id == to {
            return Ok(());
        }
        self.core.trigger().transfer_leader(to).await.map_err(Stopped::from)?;
        let moved = self.until(|status| status.leader == Some(to));
        match timeout(DECISION_WAIT, moved).await {
            Ok(moved) => Ok(moved.map(drop)?),
            Err(_) => {
                let reason = format!("node {to} did not take the lead");
                Err(ProposeError::Membership { reason })
            }
        }
    }

    /// The term in which this node leads, as far as it knows. A node that is cut off may
    /// believe so while the others have elected another, and a new leader's facts may
    /// lack what the last one committed: [`Raft::read_index`] makes sure of both.
    pub fn leading(&self) -> Option<Term> {
        let status = self.status();
        status.leads().then_some(status.term)
    }

    /// How long ago a member has answered this leader; `None` if it never has, or another
    /// node leads.
    pub fn silent_for(&self, id: NodeId) -> Option<Duration> {
        if id == *self.core.node_id() {
            return self.leading().map(|_| Duration::ZERO);
        }
        let metrics = self.core.metrics();
        let metrics = metrics.borrow_watched();
        let answered = (*metrics.heartbeat.as_ref()?.get(&id)?)?;
        Some(answered.elapsed())
    }

    /// Makes sure, by asking a majority, that this node leads and that its facts contain
    /// everything that was committed before the call. Returns the term.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`], [`ProposeError::Undecided`] or
    /// [`ProposeError::Stopped`].
    pub async fn read_index(&self) -> Result<Term, ProposeError> {
        let read = decided(self.core.ensure_linearizable(ReadPolicy::ReadIndex)).await?;
        Ok(read.committed_leader_id().term)
    }

    /// Who leads, if this node knows.
    pub fn leader(&self) -> Option<Member> {
        let metrics = self.core.metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader?;
        let address = metrics.membership_config.membership().get_node(&id)?.clone();
        Some(Member { id, address })
    }

    /// The facts on this node, and word of each change. They may be behind the leader's.
    /// Whoever reads for long clones the `Arc`: a borrowed one holds up the next change.
    pub fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        self.facts.clone()
    }

    /// This node's part at the moment.
    pub fn status(&self) -> Status {
        Status::from(&*self.core.metrics().borrow_watched())
    }

    /// Waits until `condition` holds of this node's part.
    ///
    /// # Errors
    /// When Raft stops before.
    pub async fn until(
        &self,
        condition: impl Fn(&Status) -> bool + Send + Sync,
    ) -> Result<Status, Stopped> {
        let met = |status: &Status| status.stopped.is_some() || condition(status);
        let waiting = self.core.wait(None);
        let waited = waiting.metrics(|metrics| met(&Status::from(metrics)), "a condition").await;
        let metrics = waited.map_err(|error| Stopped { reason: error.to_string() })?;
        let status = Status::from(&metrics);
        match status.stopped {
            Some(reason) => Err(Stopped { reason }),
            None => Ok(status),
        }
    }

    /// Waits until this node's facts contain the entry at `index` and all before it.
    ///
    /// # Errors
    /// When Raft stops before.
    pub async fn until_applied(&self, index: u64) -> Result<(), Stopped> {
        self.until(|status| status.applied >= Some(index)).await.map(drop)
    }

    /// Answers a call that another member's [`Transport`] brought. What went wrong is
    /// part of the answer.
    pub async fn answer(&self, rpc: Rpc, body: Bytes) -> Bytes {
        network::answer(&self.core, rpc, &body).await
    }

    /// Ends this node's part and lets go of the database. It stays a member.
    pub async fn shutdown(&self) {
        // Raft reports nothing here that it has not reported before.
        let _ = self.core.shutdown().await;
        self.store_in_use.closed().await;
    }
}

fn config() -> Config {
    let millis = |duration: Duration| duration.as_millis() as u64;
    Config {
        cluster_name: "sheaf".to_owned(),
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: millis(ELECTION_MIN),
        election_timeout_max: millis(ELECTION_MAX),
        enable_pre_vote: Some(true),
        // A term then means one leader in one life of its process.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(millis(SILENCE)),
        install_snapshot_timeout: millis(SNAPSHOT_WAIT),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        api_channel_size: Some(QUEUE_LENGTH),
        api_batch_capacity: QUEUE_LENGTH,
        notification_channel_size: Some(QUEUE_LENGTH),
        state_machine_channel_size: Some(QUEUE_LENGTH),
        ..Config::default()
    }
}

/// Waits for a decision of the cluster, within bounds.
async fn decided<T, E>(
    deciding: impl Future<Output = Result<T, RaftError<TypeConfig, E>>>,
) -> Result<T, ProposeError>
where
    ProposeError: From<E>,
{
    match timeout(DECISION_WAIT, deciding).await {
        Ok(Ok(decision)) => Ok(decision),
        Ok(Err(RaftError::APIError(error))) => Err(error.into()),
        Ok(Err(RaftError::Fatal(error))) => Err(Stopped::from(error).into()),
        Err(_) => Err(ProposeError::Undecided),
    }
}

#[cfg(test)]
mod tests;
