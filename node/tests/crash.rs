//! The node dies at every moment, and nothing that it acknowledged is lost or counted
//! twice. Needs the feature `failpoints`.
//!
//! `CRASH_ROUNDS=1000` makes a long campaign, `CRASH_SEED` repeats one's moments.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "support/http.rs"]
mod http; // requests over one plain connection
#[path = "support/process.rs"]
mod process; // the real binary
mod crash {
    pub(crate) mod campaign; // many lives on one folder
    pub(crate) mod oracle; // what they have to add up to
    pub(crate) mod power; // takes away what was not synced
    pub(crate) mod senders; // what goes on meanwhile
}

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crash::campaign::{Campaign, Life};
use crash::oracle::Fault;
use crash::senders::Seen;

/// Commits of a first start, before the first of the journal: who the node is, Raft's
/// first entries, whose the slots are, what is counted, the journal's segment, and the cut
/// from which on it counts.
const STARTING_COMMITS: u64 = 22;

/// Every place where the node may die, how often it comes by there before that in one
/// life after the other, and the range of that in a last one.
const PLACES: [(&str, &[u64], Range<u64>); 23] = [
    ("store-before-write", &[0, 1, 3, 6, 9, 12, 15, 18, 21], STARTING_COMMITS..60),
    ("store-after-sync", &[0, 1, 3, 6, 9, 12, 15, 18, 21], STARTING_COMMITS..60),
    ("journal-before-acknowledge", &[0, 1], 2..60),
    ("checkpoint-before-claim", &[0], 0..2),
    ("checkpoint-after-claim", &[0], 0..2),
    ("flush-after-deliver", &[0], 0..2),
    ("checkpoint-before-complete", &[0], 0..2),
    ("checkpoint-after-complete", &[0], 0..2),
    ("checkpoint-before-carry", &[0], 0..2),
    ("checkpoint-after-carry", &[0], 0..2),
    ("checkpoint-before-trim", &[0], 0..2),
    ("checkpoint-after-trim", &[0], 0..2),
    ("print-before-deliver", &[0], 0..2),
    ("print-after-deliver", &[0], 0..2),
    ("printed-before-record", &[0], 0..2),
    ("printed-after-record", &[0], 0..2),
    ("payload-before-write", &[0, 1], 2..60),
    ("payload-before-sync", &[0, 1], 2..60),
    ("payload-before-name", &[0], 0..1),
    ("payload-after-sync", &[0, 1], 2..60),
    // The life before has left a tail.
    ("payload-before-cut", &[0], 0..1),
    ("payload-before-remove", &[0], 0..1),
    ("payload-after-remove", &[0], 0..1),
];

/// The places that only entries in payload files come by.
const PAYLOAD: &str = "payload-";

/// The places that only large windows come by.
const CARRYING: [&str; 2] = ["checkpoint-before-carry", "checkpoint-after-carry"];

/// A disk so slow that most deaths are met in the middle of a commit.
const SLOW_DISK: &str = "store-before-write=sleep(15);store-after-sync=sleep(15)";

/// Lives on until a random moment: mostly under load, sometimes while it starts.
fn live_for_a_while(campaign: &mut Campaign) {
    let failpoints = if campaign.rng.bool() { SLOW_DISK } else { "" };
    let longest = if campaign.rng.u8(..4) == 0 { 150 } else { 1500 };
    let so_long = Duration::from_millis(campaign.rng.u64(..longest));
    campaign.live(failpoints, |_| thread::sleep(so_long));
}

fn die_at_each_place(campaign: &mut Campaign, places: &[&str]) {
    for (place, passes, last) in PLACES.iter().filter(|(place, ..)| places.contains(place)) {
        let last = campaign.rng.u64(last.clone());
        for passes in passes.iter().chain([&last]) {
            let size = if place.starts_with(PAYLOAD) { "payload-any-size=return;" } else { "" };
            campaign.live(&format!("{size}{place}={passes}*off->return"), Life::wait_for_death);
        }
    }
}

fn die_at(mut campaign: Campaign, places: &[&str]) {
    die_at_each_place(&mut campaign, places);
    campaign.end();
}

fn die_at_random_moments(mut campaign: Campaign) {
    for _ in 0..Campaign::rounds() {
        live_for_a_while(&mut campaign);
    }
    campaign.end();
}

fn payload_places() -> Vec<&'static str> {
    let places = PLACES.iter().map(|(place, ..)| *place);
    places.filter(|place| place.starts_with(PAYLOAD)).collect()
}

fn recover_from(failure: &str) {
    recover_from_after(failure, &[STARTING_COMMITS, 100], "");
}

/// Lives in which something fails after so many times that it did not, beside other
/// `failpoints`.
fn recover_from_after(failure: &str, passes: &[u64], failpoints: &str) {
    let mut campaign = Campaign::begin();
    for passes in passes {
        let later = passes + campaign.rng.u64(..passes);
        campaign.live(&format!("{failpoints}{failure}={later}*off->1*return->off"), |life| {
            life.wait_for_log("the engine failed; its database is opened again");
            life.wait_until_ready();
            life.wait_for_more("an acknowledged request", Seen::acknowledged);
        });
    }
    assert!(campaign.seen().refused() > 0, "no sender was told to come back");
    campaign.end();
}

#[test]
fn deaths_at_any_moment_lose_nothing_and_count_nothing_twice() {
    die_at_random_moments(Campaign::begin());
}

#[test]
fn deaths_around_a_commit_lose_nothing() {
    let places = ["store-before-write", "store-after-sync", "journal-before-acknowledge"];
    die_at(Campaign::begin(), &places);
}

#[test]
fn deaths_around_a_claim_or_a_delivery_lose_nothing() {
    let places = ["checkpoint-before-claim", "checkpoint-after-claim", "flush-after-deliver"];
    die_at(Campaign::begin(), &places);
}

#[test]
fn deaths_around_a_completion_lose_nothing() {
    die_at(Campaign::begin(), &["checkpoint-before-complete", "checkpoint-after-complete"]);
}

#[test]
fn deaths_around_a_line_lose_nothing_and_print_no_other() {
    die_at(Campaign::begin(), &["print-before-deliver", "print-after-deliver"]);
    die_at(Campaign::begin(), &["printed-before-record", "printed-after-record"]);
}

#[test]
fn deaths_around_a_trim_lose_nothing() {
    die_at(Campaign::begin(), &["checkpoint-before-trim", "checkpoint-after-trim"]);
}

#[test]
fn deaths_around_a_carry_lose_nothing() {
    die_at(Campaign::begin().with_large_windows(), &CARRYING);
}

#[test]
fn deaths_around_a_payload_lose_nothing() {
    die_at(Campaign::begin(), &payload_places());
}

#[test]
fn power_cuts_around_a_payload_lose_nothing() {
    die_at(Campaign::begin().with_power_cuts(), &payload_places());
}

#[test]
fn a_node_that_drains_under_load_loses_nothing() {
    let mut campaign = Campaign::begin();
    for _ in 0..2 {
        campaign.drain(|life| life.wait_for_more("an acknowledged request", Seen::acknowledged));
    }
    campaign.end();
}

#[test]
fn a_write_that_fails_is_refused_and_the_node_recovers_by_itself() {
    recover_from("store-write-fails");
}

#[test]
fn a_payload_that_cannot_be_written_is_refused_and_the_node_recovers_by_itself() {
    recover_from_after("payload-write-fails", &[3, 50], "payload-any-size=return;");
}

#[test]
fn a_sync_that_fails_is_refused_and_the_node_recovers_by_itself() {
    recover_from("store-sync-fails");
}

#[test]
fn power_cuts_at_any_moment_lose_nothing() {
    die_at_random_moments(Campaign::begin().with_power_cuts());
}

#[test]
fn power_cuts_around_a_commit_or_a_flush_lose_nothing() {
    let places = PLACES.map(|(place, ..)| place);
    let is_other = |place: &&str| !CARRYING.contains(place) && !place.starts_with(PAYLOAD);
    let places: Vec<_> = places.into_iter().filter(is_other).collect();
    die_at(Campaign::begin().with_power_cuts(), &places);
}

#[test]
fn power_cuts_around_a_carry_lose_nothing() {
    let mut campaign = Campaign::begin().with_power_cuts().with_large_windows();
    die_at_each_place(&mut campaign, &CARRYING);
    die_at_random_moments(campaign);
}

/// A cut may by chance leave all that was written, but not each time.
#[test]
fn a_missing_sync_is_found_out() {
    assert!(
        (0..10).any(|_| loses_something("store-sync-is-missing=return")),
        "nothing was missing, so no cut happened"
    );
}

/// Its rows are there, and not what they name.
#[test]
fn a_missing_sync_of_payloads_is_found_out() {
    let failpoints = "payload-any-size=return;planted-payload-unsynced=return";
    assert!((0..10).any(|_| loses_something(failpoints)), "nothing was missing");
}

/// Whether a power cut after a life without syncs takes something: only what was
/// acknowledged in that life may be missing. What is left of it may have a hole, and then
/// the node does not start.
fn loses_something(failpoints: &str) -> bool {
    let mut campaign = Campaign::begin().with_power_cuts();
    let under_load =
        |life: &mut Life| life.wait_for_more("an acknowledged request", Seen::acknowledged);
    campaign.live("", under_load);
    campaign.give_up();
    let synced = campaign.seen().records();
    campaign.live(failpoints, under_load);
    let faults = campaign.faults();
    for fault in &faults {
        let is_possible = match fault {
            Fault::Lost(number) => *number >= synced,
            Fault::Refused(told) => told.contains("the node has stopped"),
            // What else does not add up follows from what is lost.
            Fault::Other(_) => true,
        };
        assert!(is_possible, "the first {synced} were synced, and yet {fault}");
    }
    let is_found = |fault: &Fault| !matches!(fault, Fault::Other(_));
    faults.iter().any(is_found)
}

#[test]
fn every_place_where_the_node_may_die_is_tried() {
    let tried: BTreeSet<_> = PLACES.iter().map(|(place, ..)| (*place).to_owned()).collect();
    assert_eq!(places(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")), tried);
}

/// The places that the sources below `folder` name.
fn places(folder: &Path) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            places.extend(self::places(&path));
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let named = text.split("may_die(\"").skip(1).filter_map(|rest| rest.split('"').next());
        places.extend(named.map(str::to_owned));
    }
    places
}
