//! Whoever tells a cluster which of its members are to go.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sheaf_node::admin::{self, AdminError};
use sheaf_proto::cluster::{Member, MemberState};
use tokio::time::sleep;

/// How long the operator rests before a node is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(700);

/// How a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// It hands over what it has; its machine is gone once it has.
    Drain,
    /// Its machine is gone, with all that was on it.
    Forget,
}

/// That a node is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) act: Act,
    /// The number of its machine.
    pub(crate) node: usize,
    /// Where its peers reach it.
    pub(crate) address: String,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node;
        match self.act {
            Act::Drain => write!(f, "node {node} is still being drained"),
            Act::Forget => write!(f, "node {node} is not forgotten yet"),
        }
    }
}

/// The orders that were given and are not carried out; clones are the same ones.
#[derive(Clone, Default)]
pub(crate) struct Orders(Arc<Mutex<Given>>);

#[derive(Default)]
struct Given {
    orders: Vec<Order>,
    /// Those that some node has refused: another may have carried them out.
    refused: Vec<Order>,
    /// The machines whose nodes were drained.
    left: Vec<usize>,
}

impl Given {
    /// Takes an order out, and says whether it was there.
    fn take(&mut self, order: &Order) -> bool {
        let before = self.orders.len() + self.refused.len();
        self.orders.retain(|known| known != order);
        self.refused.retain(|known| known != order);
        self.orders.len() + self.refused.len() < before
    }
}

impl Orders {
    pub(crate) fn give(&self, order: Order) {
        let mut given = self.lock();
        given.refused.retain(|refused| *refused != order);
        given.orders.push(order);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().orders.is_empty()
    }

    pub(crate) fn all(&self) -> Vec<Order> {
        self.lock().orders.clone()
    }

    /// The machines whose nodes were drained since this was last asked.
    pub(crate) fn take_left(&self) -> Vec<usize> {
        mem::take(&mut self.lock().left)
    }

    /// Has a node carry out the orders, for ever. Other nodes are asked as well.
    pub(crate) async fn carry_out(self, through: Arc<dyn admin::Node>) {
        loop {
            sleep(AGAIN_AFTER).await;
            let refused = self.lock().refused.clone();
            for order in self.all().into_iter().chain(refused) {
                let members = through.cluster().members;
                // The first one that was there: another may have taken its place.
                let is_meant = |member: &&Member| member.address == order.address;
                if let Some(member) = members.iter().find(is_meant) {
                    self.carry_out_one(&order, member, &*through).await;
                }
            }
        }
    }

    async fn carry_out_one(&self, order: &Order, member: &Member, through: &dyn admin::Node) {
        match (order.act, member.state) {
            (Act::Drain, MemberState::Drained) => {
                let mut given = self.lock();
                if given.take(order) {
                    given.left.push(order.node);
                }
            }
            (Act::Forget, MemberState::Forgotten) => drop(self.lock().take(order)),
            (Act::Drain, MemberState::Draining) => {}
            (Act::Drain, _) if !self.all().contains(order) => {}
            (Act::Drain, _) => {
                // The others cannot do without it.
                if let Err(AdminError::Refused(_)) = through.drain(member.id).await {
                    let mut given = self.lock();
                    if given.take(order) {
                        given.refused.push(order.clone());
                    }
                }
            }
            // One that is refused now is not for ever: the others take over first.
            (Act::Forget, _) => drop(through.forget(member.id).await),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap()
    }
}
