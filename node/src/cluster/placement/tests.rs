use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

mod moves;

fn copies(count: u8) -> Copies {
    Copies::try_from(count).unwrap()
}

fn member(node: u64, zone: &str) -> Candidate {
    Candidate { node: NodeId(node), zone: Some(zone.to_owned()) }
}

/// Members 1 to `count`, in turn in each of so many zones.
fn members(count: u64, zones: u64) -> Vec<Candidate> {
    (1..=count).map(|node| member(node, &(node % zones).to_string())).collect()
}

fn slots() -> impl Iterator<Item = u8> {
    0..=u8::MAX
}

/// A slot whose owners, or their order, differ between two placements.
struct Change<'a> {
    old: &'a [NodeId],
    new: &'a [NodeId],
}

fn changes<'a>(previous: &'a Placement, next: &'a Placement) -> Vec<Change<'a>> {
    slots()
        .map(|slot| Change { old: previous.owners(slot), new: next.owners(slot) })
        .filter(|change| change.old != change.new)
        .collect()
}

/// Of how many slots the node is an owner.
fn owned(placement: &Placement, node: NodeId) -> usize {
    placement.slots_of(node).count()
}

/// Of how many slots the node is primary.
fn led(placement: &Placement, node: NodeId) -> usize {
    slots().filter(|&slot| placement.primary(slot) == Some(node)).count()
}

/// A tenth above the fair share of so many ownerships, rounded up.
fn most(ownerships: usize, members: usize) -> usize {
    (11 * ownerships).div_ceil(10 * members)
}

/// A tenth below it, rounded down.
fn least(ownerships: usize, members: usize) -> usize {
    9 * ownerships / (10 * members)
}

/// Members by zone.
fn zones(members: &[Candidate]) -> BTreeMap<&Option<String>, usize> {
    let mut zones = BTreeMap::new();
    for member in members {
        *zones.entry(&member.zone).or_default() += 1;
    }
    zones
}

/// The least bound under which the rule of zones can be kept, found by trying.
fn forced_by_zones(members: &[Candidate], wanted: usize) -> usize {
    let zones = zones(members);
    let per_zone = if zones.len() < wanted { wanted - zones.len() + 1 } else { 1 };
    let holds = |bound: &usize| {
        let room = zones.values().map(|size| (size * bound).min(SLOTS * per_zone));
        room.sum::<usize>() >= SLOTS * wanted
    };
    (1..=SLOTS).find(holds).unwrap()
}

fn assert_rules(placement: &Placement, members: &[Candidate], copies: Copies) {
    let count = members.len();
    let wanted = usize::from(u8::from(copies)).min(count);
    let zone_of: BTreeMap<_, _> = members.iter().map(|it| (it.node, &it.zone)).collect();
    for slot in slots() {
        let owners: BTreeSet<_> = placement.owners(slot).iter().collect();
        assert_eq!((owners.len(), placement.owners(slot).len()), (wanted, wanted), "slot {slot}");
        let apart: BTreeSet<_> = owners.iter().map(|node| zone_of[node]).collect();
        assert_eq!(apart.len(), zones(members).len().min(wanted), "zones of slot {slot}");
    }
    let bound = most(SLOTS * wanted, count).max(forced_by_zones(members, wanted));
    for member in members {
        let (owned, led) = (owned(placement, member.node), led(placement, member.node));
        assert!(owned <= bound, "{member:?} owns {owned} slots of at most {bound}");
        assert!(led <= most(SLOTS, count), "{member:?} is primary of {led}");
        assert!(led >= least(SLOTS, count), "{member:?} is primary of only {led}");
    }
}

#[test]
fn copies_are_one_two_or_three() {
    for count in 1..=3 {
        assert_eq!(u8::from(copies(count)), count);
    }
    for count in [0, 4] {
        let error = Copies::try_from(count).unwrap_err().to_string();
        assert!(error.contains("use 1, 2 or 3"), "{error}");
    }
    assert!(serde_json::from_str::<Copies>("4").is_err());
}

#[test]
fn a_placement_is_written_as_a_list_of_lists() {
    let placement = place(&members(3, 1), copies(2));
    let json = serde_json::to_string(&placement).unwrap();
    assert!(json.starts_with("[[2,1],[2,1],"), "{json}");
    assert_eq!(serde_json::from_str::<Placement>(&json).unwrap(), placement);
}

#[test]
fn lists_that_are_no_placement_are_refused() {
    let few = Placement::try_from(vec![vec![NodeId(1)]; 255]);
    assert_eq!(few, Err(InvalidPlacement::Slots(255)));
    let mut lists = vec![vec![NodeId(1), NodeId(2)]; SLOTS];
    lists[7][1] = NodeId(1);
    assert_eq!(Placement::try_from(lists), Err(InvalidPlacement::Twice(7)));
}

/// The owners of all slots, in sixteen lines.
fn written(placement: &Placement) -> Vec<String> {
    let owners = |slot| placement.owners(slot).iter().map(NodeId::to_string).collect::<String>();
    let owners: Vec<String> = slots().map(owners).collect();
    owners.chunks(16).map(|line| line.join(" ")).collect()
}

/// Placements decide which data moves, and nodes of two versions have to agree on them.
#[test]
fn a_small_placement_and_the_next_one_never_change() {
    let first = place(&members(3, 1), copies(2));
    let expected = [
        "21 21 21 21 21 21 21 21 21 21 21 12 21 23 23 32",
        "32 23 23 23 23 31 23 23 31 12 12 12 12 12 23 32",
        "32 23 23 31 12 12 12 12 12 12 12 12 12 23 23 23",
        "23 23 23 23 31 31 12 23 23 23 23 31 31 12 23 23",
        "23 31 13 13 13 13 13 13 32 32 31 13 13 32 32 13",
        "12 12 12 23 23 23 23 23 23 23 12 23 23 32 32 21",
        "12 12 21 21 23 23 32 32 32 23 23 23 31 12 13 13",
        "13 13 13 13 13 13 13 13 13 13 31 31 31 12 12 21",
        "21 21 13 13 13 13 13 13 32 32 23 23 23 23 21 21",
        "21 31 31 31 12 12 12 31 12 12 12 12 31 31 31 12",
        "31 21 21 21 12 32 32 21 21 21 21 21 21 31 31 31",
        "31 12 12 21 31 12 12 31 12 12 31 31 12 12 12 12",
        "12 12 12 12 21 21 31 31 31 31 31 31 31 31 31 32",
        "32 32 32 31 31 31 31 31 32 32 32 32 31 31 31 32",
        "31 31 32 31 12 12 12 21 13 12 23 23 23 23 23 32",
        "23 23 23 31 12 12 31 31 12 31 31 13 23 31 12 21",
    ];
    assert_eq!(written(&first), expected);
    let next = rebalance(&first, &members(5, 1)[1..], copies(2));
    let expected = [
        "45 45 45 54 54 42 24 54 54 54 24 42 24 24 24 32",
        "32 52 23 23 23 35 25 23 53 52 52 52 52 52 23 53",
        "34 42 23 35 54 54 54 54 42 42 42 42 42 23 23 23",
        "23 23 42 23 34 34 42 42 42 42 23 35 35 42 42 23",
        "23 43 53 53 53 53 53 43 32 32 34 53 53 32 32 53",
        "42 42 42 24 23 23 25 23 23 23 52 25 23 53 53 25",
        "52 52 25 25 25 23 53 43 35 24 25 23 34 42 43 43",
        "43 53 53 53 53 53 53 53 53 53 43 34 34 42 42 24",
        "25 25 53 53 53 53 43 43 43 34 24 24 24 24 24 24",
        "24 35 35 34 42 54 42 34 42 52 52 52 35 43 35 52",
        "35 25 25 25 54 43 32 25 25 25 25 25 25 35 35 35",
        "35 52 52 25 35 52 52 34 42 42 34 34 42 42 42 42",
        "42 52 52 42 24 24 35 35 35 35 35 43 34 35 35 32",
        "34 34 34 35 35 35 34 34 35 35 32 32 34 35 35 32",
        "35 35 35 34 42 42 42 25 53 42 24 24 24 23 23 35",
        "23 23 23 34 42 42 34 34 42 34 34 43 23 35 42 24",
    ];
    assert_eq!(written(&next), expected);
}

#[test]
fn the_order_of_candidates_does_not_matter_and_twice_is_once() {
    let mut candidates = members(5, 2);
    let placement = place(&candidates, copies(2));
    candidates.reverse();
    candidates.push(member(3, "1"));
    assert_eq!(place(&candidates, copies(2)), placement);
    assert_eq!(rebalance(&placement, &candidates, copies(2)), placement);
}

#[test]
fn with_fewer_candidates_than_copies_each_owns_every_slot() {
    for count in 1..=3 {
        let placement = place(&members(count, 1), copies(3));
        for node in (1..=count).map(NodeId) {
            assert_eq!(owned(&placement, node), SLOTS);
        }
    }
}

#[test]
fn without_candidates_no_slot_has_an_owner() {
    let placement = rebalance(&place(&members(2, 1), copies(1)), &[], copies(1));
    assert!(slots().all(|slot| placement.owners(slot).is_empty()));
    assert_eq!(placement.primary(0), None);
}

#[test]
fn no_member_has_a_tenth_more_than_its_fair_share() {
    for count in 1..=12 {
        for wanted in 1..=3 {
            let members = members(count, 1);
            let placement = place(&members, copies(wanted));
            assert_rules(&placement, &members, copies(wanted));
            let ownerships = SLOTS * usize::from(wanted).min(members.len());
            for member in &members {
                let owned = owned(&placement, member.node);
                assert!(owned >= least(ownerships, members.len()), "{member:?} owns only {owned}");
            }
        }
    }
}

/// Calls `check` for clusters of each size and number of copies.
fn for_clusters(zones: u64, check: impl Fn(&Placement, &[Candidate], Copies)) {
    for copies in (1..=3).map(copies) {
        for count in 2..=12 {
            let members = members(count, zones);
            check(&place(&members, copies), &members, copies);
        }
    }
}

#[test]
fn owners_are_in_different_zones_as_far_as_there_are_some() {
    for zones in 1..=4 {
        for_clusters(zones, assert_rules);
    }
}

#[test]
fn every_slot_gets_an_owner_in_a_new_zone() {
    let mut members = members(6, 1);
    let placement = place(&members, copies(2));
    members.extend((7..=10).map(|node| member(node, "new")));
    assert_rules(&rebalance(&placement, &members, copies(2)), &members, copies(2));
}

#[test]
fn members_without_a_zone_count_as_one_zone() {
    let nowhere = |node| Candidate { node: NodeId(node), zone: None };
    let members = [nowhere(1), nowhere(2), member(3, "a"), member(4, "a")];
    assert_rules(&place(&members, copies(2)), &members, copies(2));
}

/// The bound of four members is 141 slots. It still holds for primaries, and for those
/// whom zones do not force above it.
#[test]
fn zones_come_before_the_bound() {
    let members = [member(1, "a"), member(2, "b"), member(3, "b"), member(4, "b")];
    let placement = place(&members, copies(2));
    assert_rules(&placement, &members, copies(2));
    assert_eq!(owned(&placement, NodeId(1)), 256);
    for node in [2, 3, 4] {
        assert!((76..=94).contains(&owned(&placement, NodeId(node))), "node {node}");
    }
}

#[test]
fn a_chain_of_moves_keeps_the_bound_where_no_single_move_does() {
    let zones = ["a", "b", "b", "c", "c", "d", "d", "d"];
    let mut members: Vec<_> = (1..).zip(zones).map(|(node, zone)| member(node, zone)).collect();
    let placement = place(&members, copies(3));
    members.remove(1);
    assert_rules(&rebalance(&placement, &members, copies(3)), &members, copies(3));
}

#[test]
fn who_has_been_an_owner_for_longest_is_next_in_line() {
    for_clusters(1, |placement, members, copies| {
        let next = rebalance(placement, &[members, &[member(99, "0")]].concat(), copies);
        for Change { old, new, .. } in changes(placement, &next) {
            let seniority = |node| old.iter().position(|it| it == node).unwrap_or(old.len());
            assert!(new[1..].is_sorted_by_key(seniority), "{old:?} became {new:?}");
        }
    });
}

fn owners(lists: [&[u64]; 3]) -> Placement {
    let mut owners = vec![vec![NodeId(9)]; SLOTS];
    for (slot, list) in lists.into_iter().enumerate() {
        owners[slot] = list.iter().copied().map(NodeId).collect();
    }
    Placement::try_from(owners).unwrap()
}

#[test]
fn the_first_live_owner_is_promoted_and_the_dead_primary_goes_last() {
    let previous = owners([&[1, 2, 3], &[2, 1, 3], &[1, 4, 3]]);
    let promotion = promote(&previous, |node| ![1, 4].contains(&node.0));
    assert_eq!(promotion.placement, owners([&[2, 3, 1], &[2, 1, 3], &[3, 4, 1]]));
    assert!(promotion.without_live_owner.is_empty());
}

#[test]
fn slots_without_a_live_owner_are_named_and_stay_as_they_were() {
    let previous = owners([&[1, 2], &[2, 9], &[]]);
    let promotion = promote(&previous, |node| node.0 > 2);
    assert_eq!(promotion.placement, owners([&[1, 2], &[9, 2], &[]]));
    assert_eq!(promotion.without_live_owner, [0, 2]);
}

/// What happens to a cluster at once: nodes join in zones, others leave or die.
#[derive(Clone, Debug)]
struct Event {
    joining: Vec<Option<u8>>,
    leaving: Vec<prop::sample::Index>,
    dead: Option<prop::sample::Index>,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let zone = prop_oneof![1 => Just(None), 6 => (0..4_u8).prop_map(Some)];
    let joining = prop::collection::vec(zone, 0..3);
    let leaving = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let event = (joining, leaving, any::<Option<prop::sample::Index>>())
        .prop_map(|(joining, leaving, dead)| Event { joining, leaving, dead });
    prop::collection::vec(event, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_rules_hold_whatever_happens(
        events in events(),
        count in 1..=3_u8,
        later in 1..=3_u8,
        zones in prop::collection::vec(1..9_usize, 1..5),
    ) {
        let zones = zones.into_iter().enumerate().flat_map(|(zone, size)| vec![zone; size]);
        let mut members: Vec<_> =
            (1..).zip(zones).map(|(node, zone)| member(node, &zone.to_string())).collect();
        let mut placement = place(&members, copies(count));
        assert_rules(&placement, &members, copies(count));
        for Event { joining, leaving, dead } in events {
            if let Some(dead) = dead {
                let dead = dead.get(&members).node;
                placement = promote(&placement, |node| node != dead).placement;
            }
            for zone in joining {
                let zone = zone.map(|zone| zone.to_string());
                let newest = members.iter().map(|member| member.node.0).max().unwrap();
                members.push(Candidate { node: NodeId(newest + 1), zone });
            }
            for leaving in leaving {
                if members.len() > 1 {
                    members.swap_remove(leaving.index(members.len()));
                }
            }
            placement = rebalance(&placement, &members, copies(count));
            assert_rules(&placement, &members, copies(count));
            prop_assert_eq!(&rebalance(&placement, &members, copies(count)), &placement);
        }
        let placement = rebalance(&placement, &members, copies(later));
        assert_rules(&placement, &members, copies(later));
    }
}
