//! Volumes: those that hold nothing any more are deleted, the others grow.

use super::fleet::{Claim, Pod, Seat};

/// The claims that hold nothing that the cluster needs: their member has left it for good, or
/// nobody ever used them. Of pods that are to go, only once they have gone.
///
/// `wanted` pods are to be there, and the StatefulSet has `replicas`.
pub fn spent<'a>(
    claims: &'a [Claim],
    pods: &[Pod],
    seats: &[Seat],
    replicas: u32,
    wanted: u32,
) -> Vec<&'a Claim> {
    let is_spent = |claim: &&Claim| {
        let goes_first = claim.ordinal >= wanted && claim.ordinal < replicas;
        let has_pod = pods.iter().any(|pod| pod.ordinal == claim.ordinal);
        let is_taken = seats.iter().any(|seat| seat.ordinal == claim.ordinal && !seat.is_gone());
        let was_left = match claim.member {
            Some(member) => seats.iter().any(|seat| seat.member == member && seat.is_gone()),
            None => !is_taken && (claim.lost || (claim.ordinal >= replicas && !has_pod)),
        };
        was_left && !goes_first
    };
    claims.iter().filter(is_spent).collect()
}

/// How many of the wanted pods may come at once: a pod must not find the volume of a member that
/// has left, because it would be nobody.
pub fn clear_up_to(wanted: u32, replicas: u32, spent: &[&Claim]) -> u32 {
    let in_the_way = |claim: &&&Claim| claim.ordinal >= replicas;
    let lowest = spent.iter().filter(in_the_way).map(|claim| claim.ordinal).min();
    lowest.map_or(wanted, |lowest| wanted.min(lowest).max(replicas.min(wanted)))
}

/// The pods whose volume is spent: they come back with another one.
pub fn displaced<'a>(pods: &'a [Pod], spent: &[&Claim]) -> Vec<&'a Pod> {
    let is_displaced = |pod: &&Pod| spent.iter().any(|claim| claim.ordinal == pod.ordinal);
    pods.iter().filter(|pod| !pod.terminating).filter(is_displaced).collect()
}

/// The claims that ask for less than `size` bytes.
pub fn too_small(claims: &[Claim], size: u64) -> Vec<&Claim> {
    claims.iter().filter(|claim| claim.size < size && !claim.terminating).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use sheaf_proto::cluster::MemberState::{Active, Drained, Draining};

    use super::super::fleet::tests::seat;
    use super::super::rolling::tests::pod;
    use super::*;

    pub(crate) fn claim(ordinal: u32, member: Option<u64>) -> Claim {
        Claim {
            name: format!("data-logs-{ordinal}"),
            uid: format!("claim-{ordinal}"),
            ordinal,
            member,
            terminating: false,
            lost: false,
            size: 10 << 30,
        }
    }

    fn ordinals(claims: &[&Claim]) -> Vec<u32> {
        claims.iter().map(|claim| claim.ordinal).collect()
    }

    #[test]
    fn the_claim_of_a_drained_member_is_spent_once_its_pod_is_not_wanted_any_more() {
        let claims = [claim(0, Some(1)), claim(1, Some(2)), claim(2, Some(3))];
        let seats = [seat(1, 0, Active), seat(2, 1, Active), seat(3, 2, Drained)];
        let pods = [pod(0, true, false), pod(1, true, false), pod(2, false, false)];
        assert_eq!(
            ordinals(&spent(&claims, &pods, &seats, 3, 2)),
            [0; 0],
            "one replica fewer first"
        );
        assert_eq!(ordinals(&spent(&claims, &pods, &seats, 2, 2)), [2]);
    }

    #[test]
    fn the_place_of_a_drained_member_that_is_wanted_again_is_taken_anew() {
        let claims = [claim(0, Some(1)), claim(1, Some(2))];
        let seats = [seat(1, 0, Active), seat(2, 1, Drained)];
        let pods = [pod(0, true, false), pod(1, false, false)];
        let spent = spent(&claims, &pods, &seats, 2, 2);
        assert_eq!(ordinals(&spent), [1]);
        assert_eq!(displaced(&pods, &spent), [&pods[1]]);
    }

    #[test]
    fn a_pod_that_is_on_its_way_out_is_not_deleted_again() {
        let claims = [claim(0, Some(1))];
        let mut pods = [pod(0, false, false)];
        pods[0].terminating = true;
        let none: [&Pod; 0] = [];
        assert_eq!(displaced(&pods, &[&claims[0]]), none);
    }

    #[test]
    fn what_a_member_may_still_need_is_kept() {
        let claims = [claim(0, Some(1)), claim(1, Some(9)), claim(2, None)];
        let seats = [seat(1, 0, Active), seat(2, 2, Draining)];
        assert_eq!(ordinals(&spent(&claims, &[], &seats, 1, 1)), [0; 0]);
    }

    #[test]
    fn a_claim_that_nobody_used_goes_when_its_pod_has_gone() {
        let claims = [claim(2, None)];
        let pods = [pod(2, false, false)];
        assert_eq!(ordinals(&spent(&claims, &pods, &[], 2, 2)), [0; 0]);
        assert_eq!(ordinals(&spent(&claims, &[], &[], 2, 2)), [2]);
        assert_eq!(ordinals(&spent(&claims, &[], &[], 3, 3)), [0; 0], "its pod is to come");
    }

    #[test]
    fn a_lost_volume_that_nobody_used_is_replaced() {
        let claims = [Claim { lost: true, ..claim(1, None) }];
        let pods = [pod(1, false, false)];
        assert_eq!(ordinals(&spent(&claims, &pods, &[], 3, 3)), [1]);
        let taken = [seat(2, 1, Active)];
        assert_eq!(ordinals(&spent(&claims, &pods, &taken, 3, 3)), [0; 0]);
    }

    #[test]
    fn no_pod_comes_where_a_spent_claim_still_is() {
        let (three, four) = (claim(3, Some(4)), claim(4, Some(5)));
        assert_eq!(clear_up_to(5, 3, &[&four]), 4);
        assert_eq!(clear_up_to(5, 3, &[&four, &three]), 3);
        assert_eq!(clear_up_to(5, 3, &[]), 5);
        assert_eq!(clear_up_to(2, 3, &[&three]), 2);
        assert_eq!(clear_up_to(5, 5, &[&four]), 5);
    }

    #[test]
    fn claims_grow_and_never_shrink() {
        let claims = [claim(0, None), Claim { size: 20 << 30, ..claim(1, None) }];
        assert_eq!(ordinals(&too_small(&claims, 15 << 30)), [0]);
        assert_eq!(ordinals(&too_small(&claims, 10 << 30)), [0; 0]);
    }
}
