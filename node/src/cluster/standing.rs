//! What a node is to the others at the moment: what it answers them from.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::identity::{Birth, Identity};
use crate::checkpoint::raft::{ProposeError, Raft, Rpc};
use crate::cluster::formation::{Hello, State, Why};
use crate::cluster::peers::{Answers, Declined, Reply};

/// What a node is to the others. It outlives the database that it is read from.
#[derive(Default)]
pub struct Standing {
    now: RwLock<Now>,
}

#[derive(Default)]
enum Now {
    /// It has not read its volume yet.
    #[default]
    Starting,
    /// It belongs to no cluster.
    Waiting { birth: Birth, sees: BTreeSet<Birth>, why: Vec<Why> },
    /// It belongs to one, and takes part while there is a `raft`.
    Member { birth: Birth, identity: Arc<Identity>, raft: Option<Raft> },
}

impl Standing {
    /// It belongs to no cluster: in its last round it saw these births, and waits for this.
    pub fn wait(&self, birth: &Birth, sees: BTreeSet<Birth>, why: Vec<Why>) {
        self.set(Now::Waiting { birth: birth.clone(), sees, why });
    }

    /// It is a member, and takes part through `raft`.
    pub fn take_part(&self, birth: Birth, identity: Arc<Identity>, raft: Raft) {
        self.set(Now::Member { birth, identity, raft: Some(raft) });
    }

    /// It takes no part at the moment.
    pub fn leave(&self) {
        if let Now::Member { raft, .. } = &mut *self.write() {
            *raft = None;
        }
    }

    /// Who it is, if it knows.
    pub fn hello(&self) -> Option<Hello> {
        match &*self.read() {
            Now::Starting => None,
            Now::Waiting { birth, sees, .. } => {
                Some(Hello { birth: birth.clone(), state: State::Waiting { sees: sees.clone() } })
            }
            Now::Member { birth, identity, .. } => {
                let Identity { cluster, node, founders, .. } = &**identity;
                let (cluster, node, founders) = (*cluster, *node, founders.clone());
                let state = State::Member { cluster, node, founders };
                Some(Hello { birth: birth.clone(), state })
            }
        }
    }

    /// What it waits for while it belongs to no cluster.
    pub fn waits_for(&self) -> Vec<Why> {
        match &*self.read() {
            Now::Waiting { why, .. } => why.clone(),
            Now::Starting | Now::Member { .. } => Vec::new(),
        }
    }

    /// Which member it is, and its part in the cluster.
    ///
    /// # Errors
    /// While it takes no part.
    pub fn member(&self) -> Result<(Arc<Identity>, Raft), Declined> {
        match &*self.read() {
            Now::Starting => Err(Declined::NotNow("the node is starting".to_owned())),
            Now::Member { identity, raft: Some(raft), .. } => {
                Ok((Arc::clone(identity), raft.clone()))
            }
            Now::Waiting { .. } | Now::Member { raft: None, .. } => {
                let reason = "the node takes part in no cluster at the moment";
                Err(Declined::NotNow(reason.to_owned()))
            }
        }
    }

    fn set(&self, now: Now) {
        *self.write() = now;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Now> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Now> {
        self.now.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers for Standing {
    fn hello(&self) -> Result<Hello, Declined> {
        Standing::hello(self).ok_or_else(|| Declined::NotNow("the node is starting".to_owned()))
    }

    fn identity(&self) -> Result<Arc<Identity>, Declined> {
        Ok(self.member()?.0)
    }

    async fn join(&self, birth: Birth) -> Result<Reply<Identity>, Declined> {
        let (identity, raft) = self.member()?;
        // Founders gave themselves the first ids; whoever joined before those are facts
        // would get one of them.
        let known = raft.facts().borrow().members().len();
        if known < identity.founders.len() {
            let reason = "the founders' ids are no facts yet".to_owned();
            return Err(Declined::NotNow(reason));
        }
        let Birth { uuid, address, zone, .. } = birth;
        match raft.propose(Command::Join { uuid, address, zone }).await {
            Ok(Applied::Node(node)) => Ok(Reply::Done(Identity { node, ..(*identity).clone() })),
            Ok(_) => Err(Declined::NotNow("the cluster gave another answer".to_owned())),
            Err(ProposeError::NotLeader { leader }) => Ok(Reply::NotLeader { leader }),
            Err(error @ ProposeError::Refused(_)) => Err(Declined::Never(error.to_string())),
            Err(error) => Err(Declined::NotNow(error.to_string())),
        }
    }

    async fn raft(&self, rpc: Rpc, body: Bytes) -> Result<Bytes, Declined> {
        Ok(self.member()?.1.answer(rpc, body).await)
    }

    async fn propose(&self, command: Bytes) -> Result<Reply<Bytes>, Declined> {
        let (_, raft) = self.member()?;
        let unreadable = |error: serde_json::Error| Declined::Never(error.to_string());
        let command = serde_json::from_slice(&command).map_err(unreadable)?;
        match raft.propose(command).await {
            Ok(applied) => {
                Ok(Reply::Done(serde_json::to_vec(&applied).map_err(unreadable)?.into()))
            }
            Err(ProposeError::NotLeader { leader }) => Ok(Reply::NotLeader { leader }),
            Err(error @ ProposeError::Refused(_)) => Err(Declined::Never(error.to_string())),
            Err(error) => Err(Declined::NotNow(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use uuid::Uuid;

    use super::*;
    use crate::checkpoint::facts::{Facts, Settings};
    use crate::checkpoint::identity::Contribution;
    use crate::checkpoint::raft::{self, Transport, TransportError};
    use crate::cluster::view::view;
    use crate::event::fingerprint::FingerprintKey;
    use crate::event::node::NodeId;
    use crate::store::{Disk, Store};

    fn born(number: u128) -> Birth {
        let contribution = Contribution([number as u8; 16]);
        let address = format!("node-{number}:1");
        Birth { uuid: Uuid::from_u128(number), contribution, address, zone: None }
    }

    fn join(Birth { uuid, address, zone, .. }: Birth) -> Command {
        Command::Join { uuid, address, zone }
    }

    /// A way to nobody.
    struct Nowhere;

    impl Transport for Nowhere {
        fn call<'a>(
            &'a self,
            _: NodeId,
            _: &'a str,
            _: Rpc,
            _: Bytes,
            _: Duration,
        ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
            async { Err(TransportError("nobody is there".to_owned())) }.boxed()
        }
    }

    /// Node 1, which leads alone, of a cluster that two nodes have formed.
    async fn leader() -> (Standing, Raft) {
        let identity = Identity {
            cluster: Uuid::from_u128(7),
            node: NodeId(1),
            fingerprint_key: FingerprintKey([7; 16]),
            founders: BTreeSet::from([born(1), born(2)]),
        };
        let initial_facts = Facts::new(Settings { slots: 256 });
        let settings = raft::Settings { id: NodeId(1), seed: 1, initial_facts };
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let raft = Raft::start(settings, store, Arc::new(Nowhere)).await.unwrap();
        let member = raft::Member { id: NodeId(1), address: "node-1:1".to_owned() };
        raft.initialize(vec![member]).await.unwrap();
        raft.until(raft::Status::leads).await.unwrap();
        let standing = Standing::default();
        standing.take_part(born(1), Arc::new(identity), raft.clone());
        (standing, raft)
    }

    #[tokio::test]
    async fn nobody_is_taken_in_before_the_founders_have_their_ids() {
        let (standing, raft) = leader().await;
        let early = standing.join(born(9)).await;
        assert!(matches!(early, Err(Declined::NotNow(_))), "{early:?}");
        for founder in [born(1), born(2)] {
            raft.propose(join(founder)).await.unwrap();
        }
        let Ok(Reply::Done(identity)) = standing.join(born(9)).await else { panic!("refused") };
        assert_eq!((identity.node, identity.cluster), (NodeId(3), Uuid::from_u128(7)));
    }

    #[tokio::test]
    async fn a_member_that_takes_no_part_says_who_it_is_and_does_nothing() {
        let (standing, _) = leader().await;
        standing.leave();
        let hello = Answers::hello(&standing).unwrap();
        assert!(matches!(hello.state, State::Member { node: NodeId(1), .. }));
        let joined = standing.join(born(9)).await;
        assert!(matches!(joined, Err(Declined::NotNow(_))), "{joined:?}");
    }

    #[tokio::test]
    async fn people_see_who_leads_or_what_the_node_waits_for() {
        let (standing, raft) = leader().await;
        raft.propose(join(born(1))).await.unwrap();
        let seen = view(&standing);
        assert_eq!((seen.formed, seen.node, seen.leader), (true, Some(1), Some(1)));
        assert_eq!(seen.members[0].role, sheaf_proto::cluster::Role::Leader);

        let waiting = Standing::default();
        assert_eq!(view(&waiting).waiting, ["the node is starting"]);
        let why = Why::Count { found: 1, expected: 3 };
        waiting.wait(&born(1), BTreeSet::new(), vec![why.clone()]);
        let seen = view(&waiting);
        assert_eq!((seen.formed, seen.waiting), (false, vec![why.to_string()]));
    }
}
