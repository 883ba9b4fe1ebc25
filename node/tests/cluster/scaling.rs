//! Many come and many go, under load.

use std::time::Duration;

use sheaf_proto::cluster::{Member, MemberState};

use super::counting::Campaign;
use super::leaving::ask_to;
use super::nodes::{settled, view};
use crate::process::{Process, eventually, eventually_within};

/// How long a drain may take where senders leave the machine no time to spare: those who stay copy
/// results meanwhile.
const DRAIN: Duration = Duration::from_secs(90);

/// What a node tells of the member at an address.
fn member(node: &mut Process, address: &str) -> Option<Member> {
    view(node)?.members.into_iter().find(|member| member.address == address)
}

#[test]
fn three_nodes_become_five_and_five_become_two_and_counts_stay_exact() {
    let mut campaign = Campaign::begin(3, 5);
    [3, 4].into_iter().for_each(|node| campaign.start(node));
    let joined = campaign.running[4].as_mut().unwrap();
    settled(joined, 5);
    eventually("slots on all five", || {
        view(joined)?.members.iter().all(|member| member.slots > 0).then_some(())
    });
    (0..5).for_each(|node| campaign.wait_for_more(node));
    campaign.wait_for_line();

    // The first leader is one of them.
    for left in [0, 1, 2] {
        let address = campaign.nodes.addresses[left].clone();
        let through = campaign.running[4].as_mut().unwrap();
        let id = member(through, &address).unwrap().id;
        eventually("a drain that is accepted", || {
            let (status, body) = ask_to("drain", id, through);
            assert!([202, 409, 503].contains(&status), "{status} {body}");
            (status == 202).then_some(())
        });
        eventually_within(DRAIN, "a drained node", || {
            member(through, &address).filter(|member| member.state == MemberState::Drained)
        });
        campaign.terminate(left);
        campaign.wait_for_line();
    }
    [3, 4].into_iter().for_each(|node| campaign.wait_for_more(node));
    campaign.wait_for_line();
    campaign.end();
}
