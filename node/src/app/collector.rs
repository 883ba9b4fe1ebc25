//! What the port for chunks asks of the node.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::app::statistics::Statistics;
use crate::checkpoint::facts::command::Command;
use crate::cluster::proposals::ProposalError;
use crate::cluster::standing::Standing;
use crate::event::chunk::Chunk;
use crate::intake::Intake;
use crate::intake::admission::{Admission, Busy, Closed, Permit, Why};
use crate::source::chunks::Collect;

/// How long the cluster may take to decide.
const DECISION_WAIT: Duration = Duration::from_secs(10);

/// Takes chunks, whether the node's engine runs or not.
#[derive(Clone)]
pub struct Collector {
    pub(super) intake: Intake,
    pub(super) standing: Arc<Standing>,
    pub(super) statistics: Arc<Statistics>,
}

impl Collect for Collector {
    fn admission(&self) -> &Admission {
        self.intake.admission()
    }

    async fn collect(&self, chunk: Chunk, permit: Permit) -> Result<(), Busy> {
        if let Some(next) = self.statistics.lacks(&chunk) {
            let Chunk { id, session, .. } = chunk;
            return Err(self.intake.admission().refuse(Why::Gap { id, session, next }));
        }
        self.intake.collect(chunk, permit).await
    }

    fn unusable(&self) {
        self.intake.received().refuse();
    }

    fn accepted(&self) -> u64 {
        self.intake.received().chunks()
    }

    fn throttle(&self) -> u32 {
        match self.standing.member() {
            Ok((_, raft)) => raft.facts().borrow().throttle_seconds(),
            // Nobody has asked for anything, as far as it knows.
            Err(_) => 0,
        }
    }

    async fn set_throttle(&self, seconds: u32) -> Result<(), Busy> {
        let refuse = |why| {
            let admission = self.intake.admission();
            admission.refuse(Why::Closed(admission.closed().unwrap_or(why)))
        };
        let proposals = self.statistics.proposals().map_err(|_| refuse(Closed::Starting))?;
        let command = Command::Throttle { seconds };
        let decided = proposals.propose(command, DECISION_WAIT).await;
        decided.map(drop).map_err(|error| {
            warn!(%error, seconds, "senders of chunks are not asked to wait");
            refuse(match error {
                ProposalError::Undecided { .. } => Closed::Leaderless,
                ProposalError::Refused(_) | ProposalError::Stopped(_) => Closed::StoreTrouble,
            })
        })
    }
}
