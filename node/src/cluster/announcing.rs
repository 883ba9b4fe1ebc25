//! Tells the cluster where this node stands, when that is known later or has changed.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Command;
use crate::event::node::NodeId;
use crate::flush::feed::{Consensus, Disagreement};

/// What a node tells the cluster of itself.
pub struct Announcing {
    /// The node.
    pub node: NodeId,
    /// What the cluster agrees on.
    pub consensus: Arc<dyn Consensus>,
    /// What its machine may fail together with, if that is known.
    pub zone: watch::Receiver<Option<String>>,
}

impl Announcing {
    /// Tells what the facts do not say yet, until nothing changes any more.
    ///
    /// # Errors
    /// When the node takes no part any more.
    pub async fn run(mut self) -> Result<(), Disagreement> {
        loop {
            let zone = self.zone.borrow_and_update().clone();
            let news =
                zone.and_then(|zone| news(&self.consensus.facts().borrow(), self.node, zone));
            if let Some(join) = news {
                match self.consensus.propose(join).await {
                    Ok(_) => info!("the cluster knows this node's zone"),
                    Err(Disagreement::Refused(refused)) => {
                        warn!(%refused, "the cluster does not take this node's zone");
                    }
                    Err(stopped) => return Err(stopped),
                }
            }
            if self.zone.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

/// What makes the facts say that a node stands in this zone, unless they do or the node is
/// gone.
fn news(facts: &Facts, node: NodeId, zone: String) -> Option<Command> {
    let member = facts.members().get(&node).filter(|member| !member.state.is_gone())?;
    let (uuid, address) = (member.uuid, member.address.clone());
    let zone = Some(zone);
    (member.zone != zone).then_some(Command::Join { uuid, address, zone })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flush::example::Cluster;

    fn zone_of(cluster: &Cluster, node: u64) -> Option<String> {
        cluster.now().members()[&NodeId(node)].zone.clone()
    }

    /// Announces for node 1 until `zone` is dropped.
    async fn announce(cluster: &Arc<Cluster>, zone: watch::Receiver<Option<String>>) {
        let consensus = Arc::clone(cluster) as _;
        Announcing { node: NodeId(1), consensus, zone }.run().await.unwrap();
    }

    #[tokio::test]
    async fn a_zone_is_told_when_it_is_known_and_when_it_changes() {
        let cluster = Cluster::of(2);
        let before = cluster.now().members()[&NodeId(1)].clone();
        let zone = watch::Sender::new(None);
        let announcing = tokio::spawn({
            let (cluster, zone) = (Arc::clone(&cluster), zone.subscribe());
            async move { announce(&cluster, zone).await }
        });
        for name in ["a", "b"] {
            zone.send_replace(Some(name.to_owned()));
            let mut facts = Consensus::facts(&*cluster);
            facts.wait_for(|_| zone_of(&cluster, 1).as_deref() == Some(name)).await.unwrap();
        }
        drop(zone);
        announcing.await.unwrap();
        let after = cluster.now().members()[&NodeId(1)].clone();
        assert_eq!(
            (after.uuid, after.address, after.state),
            (before.uuid, before.address, before.state)
        );
        assert_eq!(zone_of(&cluster, 2), None);
    }

    #[tokio::test]
    async fn what_the_cluster_knows_is_not_told_again_nor_what_nobody_knows() {
        let cluster = Cluster::of(1);
        let told = async |zone: Option<&str>| {
            let before = cluster.now();
            let zone = watch::Sender::new(zone.map(str::to_owned)).subscribe();
            announce(&cluster, zone).await;
            !Arc::ptr_eq(&before, &cluster.now())
        };
        assert!(!told(None).await);
        assert!(told(Some("a")).await);
        assert!(!told(Some("a")).await);
        assert!(!told(None).await);
        assert_eq!(zone_of(&cluster, 1).as_deref(), Some("a"));
    }

    #[test]
    fn a_node_that_is_gone_tells_nothing() {
        let cluster = Cluster::of(2);
        assert!(news(&cluster.now(), NodeId(2), "a".to_owned()).is_some());
        cluster.apply(Command::Forget { node: NodeId(2) });
        assert_eq!(news(&cluster.now(), NodeId(2), "a".to_owned()), None);
    }
}
