//! What each node has of the windows adds up to what was printed of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sheaf_node::event::slots::SlotSet;
use sheaf_proto::statistics::WindowCounts;

use super::counting::{Campaign, get};
use crate::process::{Process, eventually};

/// What there is of a window: the slots, accepted records, distinct ones, and these by value.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    slots: usize,
    records: u64,
    distinct: u64,
    counts: BTreeMap<String, u64>,
}

impl Sum {
    fn add(&mut self, part: &WindowCounts) {
        let slots: SlotSet = part.slots.as_deref().unwrap_or("0-255").parse().unwrap();
        self.slots += slots.len();
        self.records += part.records;
        self.distinct += part.distinct;
        for counted in &part.counts {
            *self.counts.entry(counted.value.to_string()).or_default() += counted.count;
        }
    }
}

type Windows = BTreeMap<Timestamp, Sum>;

/// Adds up what a node tells of windows.
fn add(windows: &mut Windows, node: &mut Process, scope: &str) -> Option<()> {
    let told = get(node, &format!("/v1/windows?scope={scope}&limit=36000"))?;
    let told: Vec<WindowCounts> = serde_json::from_str(&told).unwrap();
    for window in &told {
        assert_eq!(window.complete, scope == "cluster", "{window:?}");
        assert_eq!(window.slots.is_some(), scope == "node", "{window:?}");
        windows.entry(window.window.start).or_default().add(window);
    }
    Some(())
}

/// Waits until the parts of all nodes that run add up to the windows that they show. While slots
/// move, one is asked before and another after.
fn wait_for_sums(campaign: &mut Campaign) {
    eventually("parts that add up to the windows", || {
        let mut running = campaign.running.iter_mut().flatten();
        let (mut whole, mut sums) = (Windows::new(), Windows::new());
        add(&mut whole, running.next()?, "cluster")?;
        campaign.running.iter_mut().flatten().try_for_each(|node| add(&mut sums, node, "node"))?;
        (!whole.is_empty() && whole.iter().all(|(start, sum)| sums.get(start) == Some(sum)))
            .then_some(())
    });
}

#[test]
fn what_each_node_has_adds_up_to_the_windows_also_when_one_is_dead() {
    let mut campaign = Campaign::begin(3, 3);
    campaign.wait_for_line();
    campaign.wait_for_line();
    wait_for_sums(&mut campaign);
    campaign.kill(1);
    campaign.wait_for_line();
    wait_for_sums(&mut campaign);
    campaign.end();
}
