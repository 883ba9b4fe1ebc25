//! What is worse than one death at a time.

use std::time::{Duration, Instant};

use sheaf_proto::cluster::SegmentState;

use super::counting::Campaign;
use super::nodes::view;
use crate::process::eventually;

/// How long the leader stands still: longer than any lease of its own.
const PAUSE: Duration = Duration::from_secs(10);
/// Requests in a row that a node refuses when it takes nothing.
const REFUSED: u64 = 50;
/// Lives that end at random moments.
const KILLS: usize = 8;

#[test]
fn nothing_is_taken_without_a_majority_and_nothing_is_lost_when_it_is_back() {
    let mut campaign = Campaign::begin(3, 3);
    campaign.wait_for_line();
    let left = 2;
    [0, 1].into_iter().for_each(|node| campaign.kill(node));
    let (mut taken, mut refused) = (0, 0);
    eventually("a node that takes nothing any more", || {
        let now = campaign.load.acknowledged(left);
        if now != taken {
            (taken, refused) = (now, campaign.load.refused(left));
        }
        (campaign.load.refused(left) >= refused + REFUSED).then_some(())
    });
    [0, 1].into_iter().for_each(|node| campaign.start(node));
    (0..3).for_each(|node| campaign.wait_for_more(node));
    campaign.wait_for_line();
    campaign.end();
}

#[test]
fn a_leader_that_stands_still_is_replaced_and_goes_on_as_one_of_the_others() {
    let mut campaign = Campaign::begin(3, 3);
    campaign.wait_for_line();
    let paused = campaign.leader();
    let process = campaign.running[paused].take().unwrap();
    let began = Instant::now();
    process.pause();
    assert_ne!(campaign.leader(), paused);
    let other = campaign.running.iter_mut().flatten().next().unwrap();
    let address = &campaign.nodes.addresses[paused];
    eventually("a segment that is being sealed", || {
        let cluster = view(other)?;
        let writer = cluster.members.iter().find(|member| member.address == *address)?.id;
        let mut own = cluster.segments.iter().filter(|segment| segment.writer == writer);
        own.all(|segment| segment.state != SegmentState::Open).then_some(())
    });
    eventually("the end of the pause", || (began.elapsed() >= PAUSE).then_some(()));
    process.go_on();
    campaign.running[paused] = Some(process);
    (0..3).for_each(|node| campaign.wait_for_more(node));
    campaign.wait_for_line();
    campaign.end();
}

/// The seed chooses who dies and when, but not how that falls in with what the nodes do.
#[test]
fn nodes_that_are_killed_at_random_moments_lose_and_repeat_nothing() {
    let seed = std::env::var("CLUSTER_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("CLUSTER_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut campaign = Campaign::begin(3, 3);
    for _ in 0..KILLS {
        let (watched, requests) = (rng.usize(..3), rng.u64(..200));
        campaign.wait_for(watched, requests);
        let mut killed = vec![0, 1, 2];
        rng.shuffle(&mut killed);
        killed.truncate(if rng.u8(..4) == 0 { 2 } else { 1 });
        killed.iter().for_each(|&node| campaign.kill(node));
        if killed.len() == 1 && rng.bool() {
            let left = (0..3).find(|node| !killed.contains(node)).unwrap();
            campaign.wait_for(left, rng.u64(..100));
        }
        killed.into_iter().for_each(|node| campaign.start(node));
    }
    (0..3).for_each(|node| campaign.wait_for_more(node));
    campaign.wait_for_line();
    campaign.end();
}
