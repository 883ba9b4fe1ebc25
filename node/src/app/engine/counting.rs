//! Tells the cluster what this node's settings say is to be counted, when they change.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::EngineError;
use crate::aggregation::definition::Definition;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::registered::{Definitions, RegisteredRecord};
use crate::flush::FlushError;
use crate::flush::feed::{Consensus, Disagreement};

/// What this node's settings say is to be counted.
pub(super) struct Counting {
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) aggregations: watch::Receiver<Vec<Definition>>,
    pub(super) heard: RegisteredRecord,
}

impl Counting {
    /// Tells the cluster, unless it was the last that the cluster heard of these settings:
    /// others may have said something else since.
    ///
    /// # Errors
    /// When the cluster does not take it, or the database fails.
    pub(super) async fn tell(&mut self) -> Result<(), EngineError> {
        let wanted = definitions(&self.aggregations.borrow_and_update())?;
        if self.heard.read()?.as_ref() == Some(&wanted) {
            if self.counted() != wanted {
                warn!("the cluster counts what another node's settings said later");
            }
            return Ok(());
        }
        let definitions = wanted.clone();
        self.consensus.propose(Command::Register { definitions }).await?;
        Ok(self.heard.write(&wanted)?)
    }

    /// Tells each change.
    ///
    /// # Errors
    /// When the node takes no part any more, or the database fails.
    pub(super) async fn run(mut self) -> Result<(), EngineError> {
        while self.aggregations.changed().await.is_ok() {
            match self.tell().await {
                Ok(()) => info!("the cluster knows what is to be counted"),
                Err(EngineError::Consensus(Disagreement::Refused(refused))) => {
                    error!(%refused, "what is counted stays as it was");
                }
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }

    /// What the facts say is counted.
    fn counted(&self) -> Definitions {
        let facts = self.consensus.facts().borrow().clone();
        let known = facts.aggregations().values().filter(|known| known.until.is_none());
        known.map(|known| (known.name.clone(), known.definition.clone())).collect()
    }
}

fn definitions(aggregations: &[Definition]) -> Result<Definitions, EngineError> {
    let written = aggregations.iter().map(|definition| {
        let name = definition.name.as_str().to_owned();
        match serde_json::to_value(definition) {
            Ok(written) => Ok((name, written)),
            Err(error) => {
                Err(FlushError::Definition { number: 0, name, reason: error.to_string() })
            }
        }
    });
    Ok(written.collect::<Result<_, FlushError>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::definition::Written;
    use crate::flush::example::Cluster;
    use crate::store::{Disk, Store};

    /// A node whose settings count by an attribute, with this on its volume.
    fn node(cluster: &Arc<Cluster>, store: &Arc<Store>, attribute: &str) -> Counting {
        let written = serde_json::json!({
            "name": "a", "type": "DistinctLogs", "distinctLogs": {"attribute": attribute},
        });
        let written: Written = serde_json::from_value(written).unwrap();
        let aggregations = watch::Sender::new(vec![Definition::try_from(written).unwrap()]);
        let aggregations = aggregations.subscribe();
        let heard = RegisteredRecord::new(Arc::clone(store));
        Counting { consensus: Arc::clone(cluster) as _, aggregations, heard }
    }

    fn volume() -> Arc<Store> {
        Arc::new(Store::in_memory(&Disk::default()).unwrap())
    }

    /// By which attribute the cluster counts.
    fn counted(counting: &Counting) -> String {
        let counted = counting.counted();
        counted["a"]["distinctLogs"]["attribute"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_node_that_comes_back_with_old_settings_overrules_nobody() {
        let cluster = Cluster::of(2);
        let (first, second) = (volume(), volume());
        node(&cluster, &first, "old").tell().await.unwrap();
        node(&cluster, &second, "old").tell().await.unwrap();
        node(&cluster, &first, "new").tell().await.unwrap();
        let mut back = node(&cluster, &second, "old");
        back.tell().await.unwrap();
        assert_eq!(counted(&back), "new");
        node(&cluster, &second, "new").tell().await.unwrap();
        assert_eq!(counted(&back), "new");
    }

    #[tokio::test]
    async fn the_settings_that_changed_last_count() {
        let (cluster, store) = (Cluster::of(1), volume());
        for attribute in ["a", "b", "a"] {
            let mut node = node(&cluster, &store, attribute);
            node.tell().await.unwrap();
            assert_eq!(counted(&node), attribute);
        }
    }
}
