use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::checkpoint::facts::{Facts, Settings};
use crate::checkpoint::raft;
use crate::cluster::example::{CLUSTER, Nowhere, born, identity, join, member};
use crate::cluster::view::view;
use crate::event::node::NodeId;
use crate::store::{Disk, Store};

mod lent; // journals and results, lent and taken back

/// Node 1, which leads alone, of a cluster that two nodes have formed.
async fn leader() -> (Standing, Raft) {
    let initial_facts = Facts::new(Settings { slots: 256 });
    let settings = raft::Settings { id: NodeId(1), seed: 1, initial_facts };
    let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
    let raft = Raft::start(settings, store, Arc::new(Nowhere)).await.unwrap();
    raft.initialize(vec![member(1)]).await.unwrap();
    raft.until(raft::Status::leads).await.unwrap();
    let standing = Standing::default();
    standing.take_part(born(1), Arc::new(identity(1)), raft.clone());
    (standing, raft)
}

#[tokio::test]
async fn nobody_is_taken_in_before_the_founders_have_their_ids() {
    let (standing, raft) = leader().await;
    let early = standing.join(born(9)).await;
    assert!(matches!(early, Err(Declined::NotNow(_))), "{early:?}");
    for founder in [1, 2] {
        raft.propose(join(founder)).await.unwrap();
    }
    let Ok(Reply::Done(identity)) = standing.join(born(9)).await else { panic!("refused") };
    assert_eq!((identity.node, identity.cluster), (NodeId(3), CLUSTER));
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
    raft.propose(join(1)).await.unwrap();
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
