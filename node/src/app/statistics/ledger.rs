//! What came in against what went out: from what nodes have, and from what the cluster knows.

use std::collections::BTreeMap;

use sheaf_proto::statistics::{Account, Ledger};

use crate::admin::Scope;
use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::aggregations::Aggregation;
use crate::cluster::live::Live;
use crate::journal::Extent;

/// The ledger of the nodes that said what they have, which are all that are reached, or one
/// alone. It balances only if they know the newest cut.
///
/// What nodes accepted that are gone, or are not reached, only the cuts tell: an aggregation
/// knows it since it began, so the cluster's figure is at least that of each aggregation.
pub(super) fn draw_up(facts: &Facts, live: &[Live], scope: Scope) -> Ledger {
    let cut = facts.latest_cut().number;
    let is_at_cut = |live: &Live| live.pending.as_ref().is_some_and(|p| p.cut == cut);
    let mut balanced = live.iter().all(is_at_cut);
    let mut accepted = live.iter().map(|live| live.accepted).sum::<u64>();
    let mut accounts = Vec::new();
    for (number, aggregation) in facts.aggregations() {
        let pending = live.iter().filter_map(|live| live.pending.as_ref());
        let repeated = pending.clone().filter_map(|pending| pending.repeated.get(number));
        // Every node knows of all.
        let repeated = repeated.max().copied().unwrap_or(0);
        let pending = pending.filter_map(|pending| pending.records.get(number)).sum();
        let account = account(aggregation, pending, repeated, scope);
        let entries = facts.balance(*number).is_none_or(|balance| balance.holds());
        balanced &= entries && adds_up(&account, scope);
        accounts.push(account);
        if scope == Scope::Cluster {
            accepted = accepted.max(aggregation.ledger.accepted.records);
        }
    }
    let mut rejected = BTreeMap::new();
    for (reason, records) in live.iter().flat_map(|live| &live.rejected) {
        *rejected.entry(reason.clone()).or_default() += records;
    }
    let received = accepted + rejected.values().sum::<u64>();
    Ledger { received, accepted, rejected, aggregations: accounts, balanced }
}

/// An aggregation's side of the ledger, with so many records that are not flushed, and so many
/// that repeat others.
fn account(aggregation: &Aggregation, pending: u64, deduplicated: u64, scope: Scope) -> Account {
    let Aggregation { name, ledger, losses, .. } = aggregation;
    let accepted = aggregation.accepted().saturating_sub(deduplicated);
    // Of what was lost some slots had flushed their part before.
    let rest = accepted.saturating_sub(ledger.flushed + pending);
    let lost = match scope {
        Scope::Cluster if ledger.lost != Extent::default() || !losses.is_empty() => rest,
        Scope::Cluster => 0,
        // The rest may be pending on other nodes as well.
        Scope::Node => rest.min(aggregation.lost()),
    };
    Account {
        aggregation: name.clone(),
        accepted,
        flushed: ledger.flushed,
        distinct: ledger.distinct,
        duplicate: ledger.flushed.saturating_sub(ledger.distinct),
        pending,
        lost,
        deduplicated,
    }
}

/// Whether nothing is missing, or, of one node, nothing is there twice.
fn adds_up(account: &Account, scope: Scope) -> bool {
    let Account { accepted, flushed, pending, lost, .. } = account;
    let told = flushed + pending + lost;
    match scope {
        Scope::Cluster => *accepted == told,
        Scope::Node => *accepted >= told,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::flush::example::Cluster;
    use crate::flush::folding::Pending;

    /// A cluster whose journals have so many records below the newest cut, and none flushed.
    fn counted(records: u64) -> Arc<Cluster> {
        let cluster = Cluster::of(2);
        let segment = cluster.open(1);
        cluster.cut(5, &[(segment, records)]);
        cluster
    }

    fn live(cluster: &Cluster, accepted: u64, pending: u64) -> Live {
        let cut = cluster.now().latest_cut().number;
        let (records, repeated) = (BTreeMap::from([(0, pending)]), BTreeMap::new());
        let pending = Some(Pending { cut, records, repeated });
        let rejected = BTreeMap::from([("MalformedBody".to_owned(), 1)]);
        Live { accepted, rejected, pending, windows: Vec::new() }
    }

    #[test]
    fn figures_of_all_nodes_are_added_up() {
        let cluster = counted(10);
        let all = [live(&cluster, 7, 4), live(&cluster, 5, 6)];
        let ledger = draw_up(&cluster.now(), &all, Scope::Cluster);
        assert_eq!((ledger.received, ledger.accepted), (14, 12), "two came after the cut");
        assert_eq!(ledger.rejected["MalformedBody"], 2);
        let [account] = ledger.aggregations.as_slice() else { panic!("{ledger:?}") };
        assert_eq!((account.accepted, account.pending, ledger.balanced), (10, 10, true));
    }

    #[test]
    fn what_a_node_accepted_that_is_gone_is_in_the_clusters_figure() {
        let cluster = counted(10);
        let left = [live(&cluster, 3, 10)];
        let ledger = draw_up(&cluster.now(), &left, Scope::Cluster);
        assert_eq!((ledger.received, ledger.accepted, ledger.balanced), (11, 10, true));
    }

    #[test]
    fn a_ledger_does_not_balance_if_something_is_missing_or_there_twice_or_a_node_is_behind() {
        let cluster = counted(10);
        let balanced = |all: &[Live]| draw_up(&cluster.now(), all, Scope::Cluster).balanced;
        assert!(balanced(&[live(&cluster, 5, 5), live(&cluster, 5, 5)]));
        assert!(!balanced(&[live(&cluster, 5, 5), live(&cluster, 5, 4)]));
        assert!(!balanced(&[live(&cluster, 5, 5), live(&cluster, 5, 6)]));
        assert!(!balanced(&[live(&cluster, 5, 10), Live::default()]));
        let behind = [live(&cluster, 10, 10)];
        cluster.cut(6, &[]);
        assert!(!draw_up(&cluster.now(), &behind, Scope::Cluster).balanced);
    }

    #[test]
    fn one_nodes_ledger_has_what_it_received_and_balances_without_the_others() {
        let cluster = counted(10);
        let own = |pending| draw_up(&cluster.now(), &[live(&cluster, 3, pending)], Scope::Node);
        let ledger = own(4);
        assert_eq!((ledger.received, ledger.accepted, ledger.balanced), (4, 3, true));
        let [account] = ledger.aggregations.as_slice() else { panic!("{ledger:?}") };
        assert_eq!((account.accepted, account.pending, account.lost), (10, 4, 0));
        assert!(!own(11).balanced);
    }
}
