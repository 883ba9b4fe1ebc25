//! How much moves when members join and leave, against the least that has to.

use super::*;

fn without(members: &[Candidate], leaving: &Candidate) -> Vec<Candidate> {
    members.iter().filter(|member| *member != leaving).cloned().collect()
}

/// How many nodes became owners of a slot, summed over the slots.
fn gained(previous: &Placement, next: &Placement) -> usize {
    let gained =
        |change: Change| change.new.iter().filter(|node| !change.old.contains(node)).count();
    changes(previous, next).into_iter().map(gained).sum()
}

/// How many slots have another primary.
fn moved(previous: &Placement, next: &Placement) -> usize {
    slots().filter(|&slot| previous.primary(slot) != next.primary(slot)).count()
}

/// The least that a member has to get when it joins: nine tenths of its fair share, or
/// what the others have above the bound, whichever is more.
fn needed(before: impl Iterator<Item = usize>, ownerships: usize, members: usize) -> usize {
    let above = before.map(|load| load.saturating_sub(most(ownerships, members))).sum();
    least(ownerships, members).max(above).max(ownerships.saturating_sub((members - 1) * SLOTS))
}

#[test]
fn a_member_that_joins_gets_its_share_and_nothing_else_moves() {
    for_clusters(1, |placement, members, copies| {
        let more = [members, &[member(99, "0")]].concat();
        let next = rebalance(placement, &more, copies);
        let wanted = usize::from(u8::from(copies)).min(more.len());
        let before = members.iter().map(|member| owned(placement, member.node));
        assert_eq!(gained(placement, &next), needed(before, SLOTS * wanted, more.len()));
        let before = members.iter().map(|member| led(placement, member.node));
        assert_eq!(moved(placement, &next), needed(before, SLOTS, more.len()));
    });
}

/// Beyond the slots of the one that leaves, primaries move only to fill up those who
/// are short of their new share: a fifth more at most.
#[test]
fn of_a_member_that_leaves_others_get_its_slots_and_nothing_else_moves() {
    for_clusters(1, |placement, members, copies| {
        for leaving in members {
            let rest = without(members, leaving);
            let next = rebalance(placement, &rest, copies);
            let every_member_owns_all = rest.len() < usize::from(u8::from(copies));
            let lost = if every_member_owns_all { 0 } else { owned(placement, leaving.node) };
            assert_eq!(gained(placement, &next), lost, "{leaving:?} of {}", members.len());
            let (moved, lost) = (moved(placement, &next), led(placement, leaving.node));
            assert!(moved >= lost && moved * 5 <= lost * 6, "{moved} primaries for {lost}");
        }
    });
}

#[test]
fn with_zones_at_most_three_tenths_more_move() {
    for zones in [3, 4] {
        for_clusters(zones, |placement, members, copies| {
            let wanted = usize::from(u8::from(copies));
            let more = [members, &[member(99, "0")]].concat();
            let next = rebalance(placement, &more, copies);
            let before = members.iter().map(|member| owned(placement, member.node));
            let needed = needed(before, SLOTS * wanted.min(more.len()), more.len());
            assert!(gained(placement, &next) * 10 <= needed * 13, "one joins {}", members.len());
            for leaving in members.iter().filter(|_| members.len() > wanted) {
                let next = rebalance(placement, &without(members, leaving), copies);
                let (gained, lost) = (gained(placement, &next), owned(placement, leaving.node));
                assert!(gained * 10 <= lost * 13, "{gained} gained for {lost}");
                let (moved, lost) = (moved(placement, &next), led(placement, leaving.node));
                assert!(moved * 5 <= lost * 6, "{moved} primaries for {lost}");
            }
        });
    }
}

#[test]
fn members_of_a_small_zone_share_what_zones_force_on_it() {
    let mut members = members(10, 1);
    members.extend([member(11, "small"), member(12, "small")]);
    let placement = place(&members, copies(2));
    assert_eq!([11, 12].map(|node| owned(&placement, NodeId(node))), [128, 128]);
    members.push(member(13, "small"));
    let next = rebalance(&placement, &members, copies(2));
    let shares = [11, 12, 13].map(|node| owned(&next, NodeId(node)));
    assert!(shares.iter().all(|share| (85..=86).contains(share)), "{shares:?}");
    assert_eq!(gained(&placement, &next), owned(&next, NodeId(13)));
}

#[test]
fn a_primary_that_leaves_is_mostly_followed_by_another_owner() {
    for_clusters(1, |placement, members, wanted| {
        for leaving in members.iter().filter(|_| wanted > copies(1)) {
            let rest = without(members, leaving);
            let next = rebalance(placement, &rest, wanted);
            let mut changes = changes(placement, &next);
            changes.retain(|change| change.old[0] == leaving.node);
            let followed = changes.iter().filter(|it| it.old.contains(&it.new[0])).count();
            assert!(followed * 20 >= changes.len() * 19, "{followed} of {}", changes.len());
        }
    });
}
