//! The journals and results of a running node, lent to other members until they are
//! taken back.
//!
//! Whoever stops the node's engine, or opens its database again, needs all of it for
//! itself. A stream that another node does not read would keep it for ever, so each
//! stream is pumped by a task here, which lets go at once.

use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::starting;
use crate::cluster::peers::{Declined, Holdings};

/// What is lent at the moment.
#[derive(Default)]
pub(super) struct Attached {
    now: RwLock<Option<Loan>>,
}

struct Loan {
    holdings: Arc<dyn Holdings>,
    ended: CancellationToken,
    uses: TaskTracker,
}

/// One use of what is lent. The fields are dropped in this order.
pub(super) struct Use {
    pub(super) holdings: Arc<dyn Holdings>,
    ended: CancellationToken,
    _counted: TaskTrackerToken,
}

impl Attached {
    /// Lends from now on what `holdings` gives out.
    pub(super) fn attach(&self, holdings: Arc<dyn Holdings>) {
        let (ended, uses) = (CancellationToken::new(), TaskTracker::new());
        let before = self.replace(Some(Loan { holdings, ended, uses }));
        // Nobody waits for it, but nothing more is to come of it.
        before.inspect(|loan| loan.ended.cancel());
    }

    /// Ends all uses, and returns when nothing is in use any more.
    pub(super) async fn detach(&self) {
        if let Some(Loan { holdings, ended, uses }) = self.replace(None) {
            drop(holdings);
            ended.cancel();
            uses.close();
            uses.wait().await;
        }
    }

    /// What is lent, if anything is.
    pub(super) fn borrow(&self) -> Result<Use, Declined> {
        // It is counted before the lock is given back, and so before it can be taken back.
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let Loan { holdings, ended, uses } = now.as_ref().ok_or_else(starting)?;
        let (holdings, ended) = (Arc::clone(holdings), ended.clone());
        Ok(Use { holdings, ended, _counted: uses.token() })
    }

    fn replace(&self, loan: Option<Loan>) -> Option<Loan> {
        std::mem::replace(&mut *self.now.write().unwrap_or_else(PoisonError::into_inner), loan)
    }
}

impl Use {
    /// The answer, if it comes before the end.
    pub(super) async fn answer<T>(
        &self,
        asked: BoxFuture<'_, Result<T, Declined>>,
    ) -> Result<T, Declined> {
        self.ended.run_until_cancelled(asked).await.unwrap_or_else(|| Err(stopping()))
    }

    /// The items, and an error where the end cuts them off.
    pub(super) fn stream<T: Send + 'static>(
        self,
        items: BoxStream<'static, Result<T, Declined>>,
    ) -> BoxStream<'static, Result<T, Declined>> {
        let (to, received) = mpsc::channel(1);
        tokio::spawn(self.pump(items, to));
        let received = stream::unfold(Some(received), async |received| {
            let mut received = received?;
            match received.recv().await {
                Some(Some(Ok(item))) => Some((Ok(item), Some(received))),
                Some(Some(Err(error))) => Some((Err(error), None)),
                // Only the pump's own word is the end.
                Some(None) => None,
                None => Some((Err(stopping()), None)),
            }
        });
        received.boxed()
    }

    /// Passes on all items, and `None` when there are no more, while somebody takes them
    /// and until the end.
    async fn pump<T>(
        self,
        items: BoxStream<'static, Result<T, Declined>>,
        to: mpsc::Sender<Option<Result<T, Declined>>>,
    ) {
        let mut items = items.map(Some).chain(stream::iter([None]));
        let passing = async {
            while let Some(item) = items.next().await {
                if to.send(item).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = to.closed() => {}
            () = passing => {}
        }
        // What the items hold is in use for as long as they are there.
        drop(items);
    }
}

fn stopping() -> Declined {
    Declined::NotNow("the node is stopping".to_owned())
}
