//! From a volume to a member of a cluster that takes part.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::{self, Facts};
use crate::checkpoint::identity::{Birth, Entropy, Identity, IdentityError};
use crate::checkpoint::raft::{self, ProposeError, Raft, StartError, Stopped};
use crate::cluster::address::PeerAddress;
use crate::cluster::duties::{self, Duty, Voters};
use crate::cluster::formation::{self, Answer, Decision, Founding, Why, decide, sight};
use crate::cluster::initial::InitialMembers;
use crate::cluster::leases::Silent;
use crate::cluster::peers::{self, Peers, Reply};
use crate::cluster::placement::Copies;
use crate::cluster::standing::Standing;
use crate::event::fingerprint::SLOTS;
use crate::store::{Store, StoreError};

/// How long a node rests between two rounds of asking the others.
const ROUND: Duration = Duration::from_millis(300);
/// How long a node may take to say who it is, or a name server to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long a cluster may take to take a node in: an election, and a decision.
const JOIN_WAIT: Duration = Duration::from_secs(10);
/// How long the lead may take to go to another when its node stops; then the others elect.
const HAND_ON_WAIT: Duration = Duration::from_secs(1);
/// How long the leader rests when a duty could not be done, or nothing seems to be due.
const DUTY_PAUSE: Duration = Duration::from_millis(500);

/// Why a node is no member.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// Who it is cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It cannot take part.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It does not take part any more.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The cluster could not be formed.
    #[error("form the cluster: {0}")]
    Form(#[from] ProposeError),
}

impl MembershipError {
    /// Whether opening the database again can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            MembershipError::Identity(error) => matches!(error, IdentityError::Store(_)),
            MembershipError::Stopped(_) | MembershipError::Form(_) => true,
            MembershipError::Start(_) => false,
        }
    }
}

impl From<StoreError> for MembershipError {
    fn from(error: StoreError) -> MembershipError {
        MembershipError::Identity(error.into())
    }
}

/// What a node needs to become a member.
pub struct Candidate {
    /// The node's database.
    pub store: Arc<Store>,
    /// Where other nodes reach it, host and port.
    pub address: String,
    /// Where its machine stands, if that is known.
    pub zone: Option<String>,
    /// What its birth is made of, if its volume is new.
    pub entropy: Entropy,
    /// Who forms a new cluster.
    pub initial: InitialMembers,
    /// How many owners each slot is to have when this node leads.
    pub copies: Copies,
    /// How many members are to vote at most when this node leads.
    pub voters: Voters,
    /// The ways to the others.
    pub peers: Peers,
    /// What the others are told meanwhile.
    pub standing: Arc<Standing>,
}

/// A member that takes part.
pub struct Membership {
    identity: Arc<Identity>,
    raft: Raft,
    member: peers::Member,
    standing: Arc<Standing>,
    silent: watch::Sender<Silent>,
    leading: JoinHandle<()>,
}

impl Membership {
    /// Becomes a member, and waits until the cluster has taken it in: for others, and
    /// for a majority, as long as that takes.
    ///
    /// # Errors
    /// When the database fails, or holds what this version cannot read.
    pub async fn begin(candidate: Candidate) -> Result<Membership, MembershipError> {
        let Candidate { store, address, zone, entropy, initial, copies, voters, peers, standing } =
            candidate;
        let birth = Birth::load_or_create(&store, address, zone, &entropy)?;
        let identity = match Identity::load(&store)? {
            Some(identity) => identity,
            None => {
                let identity = find_cluster(&birth, &initial, &peers, &standing).await;
                identity.record(&store)?;
                info!(cluster = %identity.cluster, node = %identity.node, "became a member");
                identity
            }
        };
        let identity = Arc::new(identity);
        let member = peers::Member::new(peers, &identity);
        let transport = Arc::new(member.clone());
        let initial_facts = Facts::new(facts::Settings { slots: SLOTS as u16 });
        let settings = raft::Settings { id: identity.node, seed: fastrand::u64(..), initial_facts };
        let raft = Raft::start(settings, store, transport).await?;
        standing.take_part(birth, Arc::clone(&identity), raft.clone());
        let founding = Founding::of(identity.founders.clone());
        let (silent, known) = watch::channel(Silent::default());
        let leading = tokio::spawn(lead(raft.clone(), founding.clone(), known, copies, voters));
        let membership = Membership { identity, raft, member, standing, silent, leading };
        match membership.settle(&founding).await {
            Ok(()) => Ok(membership),
            Err(error) => {
                membership.end().await;
                Err(error)
            }
        }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its part in the cluster.
    pub fn raft(&self) -> Raft {
        self.raft.clone()
    }

    /// Whom to tell which members do not answer any more.
    pub fn silent(&self) -> watch::Sender<Silent> {
        self.silent.clone()
    }

    /// The ways to the other members.
    pub fn member(&self) -> peers::Member {
        self.member.clone()
    }

    /// Waits until it takes no part any more, and says why.
    pub async fn failed(&self) -> Stopped {
        match self.raft.until(|_| false).await {
            Err(stopped) => stopped,
            Ok(_) => Stopped { reason: "it ended by itself; please report this".to_owned() },
        }
    }

    /// Hands the lead on if this node has it, because it is about to stop: the others would find
    /// out only after a while that nobody leads.
    pub async fn hand_on(&self) {
        let status = self.raft.status();
        if !status.leads() {
            return;
        }
        let others = status.voters.iter().copied().filter(|voter| *voter != status.id);
        let heard = others.filter_map(|voter| Some((self.raft.silent_for(voter)?, voter)));
        let Some((_, to)) = heard.filter(|(silent, _)| *silent < HAND_ON_WAIT).min() else {
            return;
        };
        match timeout(HAND_ON_WAIT, self.raft.transfer_leadership(to)).await {
            Ok(Ok(())) => info!(%to, "the lead is handed on, as this node stops"),
            Ok(Err(error)) => warn!(%error, %to, "the lead could not be handed on"),
            Err(_) => warn!(%to, "the lead could not be handed on in time"),
        }
    }

    /// Takes no part any more, and lets go of the database. It stays a member.
    pub async fn end(self) {
        self.standing.leave();
        self.leading.abort();
        self.raft.shutdown().await;
    }

    /// Begins the log if nobody has, and waits until the cluster knows this node.
    async fn settle(&self, founding: &Founding) -> Result<(), MembershipError> {
        found(founding, &self.identity, &self.raft).await?;
        Ok(self.until_taken_in().await?)
    }

    async fn until_taken_in(&self) -> Result<(), Stopped> {
        let mut facts = self.raft.facts();
        let node = self.identity.node;
        let is_taken_in = |facts: &Arc<Facts>| {
            facts.members().get(&node).is_some_and(|own| own.state != MemberState::Joining)
        };
        tokio::select! {
            known = facts.wait_for(is_taken_in) => match known {
                Ok(_) => Ok(()),
                Err(_) => Err(self.failed().await),
            },
            stopped = self.failed() => Err(stopped),
        }
    }
}

/// Forms a cluster with others, or is taken in by one.
async fn find_cluster(
    birth: &Birth,
    initial: &InitialMembers,
    peers: &Peers,
    standing: &Standing,
) -> Identity {
    let is_alone = initial.count() == 1
        && initial.addresses().iter().all(|address| address.to_string() == birth.address);
    if is_alone {
        return formation::alone(birth.clone());
    }
    standing.wait(birth, BTreeSet::new(), Vec::new());
    let mut said = Vec::new();
    loop {
        let seen = ask_round(initial, peers).await;
        let why = match decide(birth, initial.count(), &seen) {
            Decision::Form(identity) | Decision::Adopt(identity) => return identity,
            Decision::Join { cluster, through } => {
                match join(peers, cluster, through, birth).await {
                    Ok(identity) => return identity,
                    Err(why) => vec![why],
                }
            }
            Decision::Wait(why) => why,
        };
        let now: Vec<_> = why.iter().map(ToString::to_string).collect();
        if now != said {
            now.iter().for_each(|why| info!("no cluster yet: {why}"));
            said = now;
        }
        standing.wait(birth, sight(&seen), why);
        sleep(ROUND).await;
    }
}

/// Asks all initial members at once who they are.
async fn ask_round(initial: &InitialMembers, peers: &Peers) -> Vec<Answer> {
    let resolved = join_all(initial.addresses().iter().map(resolve)).await;
    let mut addresses = BTreeSet::new();
    let mut answers = Vec::new();
    for (name, found) in initial.addresses().iter().zip(resolved) {
        match found {
            Ok(found) => addresses.extend(found),
            Err(reason) => answers.push(Answer { address: name.to_string(), hello: Err(reason) }),
        }
    }
    let asked = addresses.into_iter().map(|address| async move {
        let hello = peers.hello(&address, ANSWER_WAIT).await.map_err(|error| error.to_string());
        Answer { address, hello }
    });
    answers.extend(join_all(asked).await);
    answers
}

/// The addresses that a name stands for at the moment.
async fn resolve(name: &PeerAddress) -> Result<Vec<String>, String> {
    let looked_up = timeout(ANSWER_WAIT, lookup_host(name.to_string())).await;
    let found = looked_up.map_err(|_| format!("no answer within {ANSWER_WAIT:?}"))?;
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.to_string()).collect())
}

/// Asks one member after the other, and the leader that they name, to be taken in.
async fn join(
    peers: &Peers,
    cluster: uuid::Uuid,
    through: Vec<String>,
    birth: &Birth,
) -> Result<Identity, Why> {
    let mut refused = Why::NotReached { address: String::new(), reason: "nobody to ask".into() };
    for address in through {
        let mut ask = address;
        // The one that was asked may name the leader; that one leads, or nobody knows.
        for _ in 0..2 {
            let reason = match peers.join(&ask, cluster, birth, JOIN_WAIT).await {
                Ok(Reply::Done(identity)) => return Ok(identity),
                Ok(Reply::NotLeader { leader: Some(leader) }) => {
                    ask = leader.address;
                    continue;
                }
                Ok(Reply::NotLeader { leader: None }) => "nobody leads at the moment".to_owned(),
                Err(error) => error.to_string(),
            };
            refused = Why::NotReached { address: ask, reason };
            break;
        }
    }
    Err(refused)
}

/// Each founder that votes begins the log of a cluster that was just formed, all of them
/// with the same voters: whichever does it first does it for all.
async fn found(
    founding: &Founding,
    identity: &Identity,
    raft: &Raft,
) -> Result<(), MembershipError> {
    let voters = duties::first_voters(founding);
    let votes = voters.iter().any(|voter| voter.id == identity.node);
    if !votes || raft.is_initialized().await? {
        return Ok(());
    }
    match raft.initialize(voters).await {
        // Another one was faster.
        Err(_) if raft.is_initialized().await? => Ok(()),
        done => Ok(done?),
    }
}

/// Does what the leader has to do, whenever this node leads.
async fn lead(
    raft: Raft,
    founding: Founding,
    mut silent: watch::Receiver<Silent>,
    copies: Copies,
    voters: Voters,
) {
    let mut facts = raft.facts();
    loop {
        if raft.until(raft::Status::leads).await.is_err() {
            return;
        }
        let status = raft.status();
        let (term, silent_now) = silent.borrow_and_update().clone();
        // What an earlier term knew says nothing.
        let silent_now = if term == status.term { silent_now } else { BTreeSet::new() };
        let known = facts.borrow_and_update().clone();
        let duty = duties::next(&founding, &known, &status, &silent_now, copies, voters);
        let done = match duty {
            None => false,
            Some(duty) => do_duty(&raft, duty).await,
        };
        if !done {
            // Facts change, or a member catches up, of which there is no word.
            tokio::select! {
                _ = facts.changed() => {}
                _ = silent.changed() => {}
                () = sleep(DUTY_PAUSE) => {}
            }
        }
    }
}

async fn do_duty(raft: &Raft, duty: Duty) -> bool {
    let what = duty.to_string();
    let done = match duty {
        Duty::Propose(command) => raft.propose(command).await.map(drop),
        Duty::Teach(member) => raft.add_learner(member).await,
        Duty::HandOn(to) => raft.transfer_leadership(to).await,
        Duty::LetVote(voters) => raft.change_voters(voters).await,
        Duty::Dismiss(node) => raft.remove_learner(node).await,
    };
    match &done {
        Ok(()) => info!(duty = what, "the leader has done a duty"),
        // The next leader will do it.
        Err(ProposeError::NotLeader { .. }) => {}
        Err(error) => warn!(%error, duty = what, "a duty could not be done yet"),
    }
    done.is_ok()
}
