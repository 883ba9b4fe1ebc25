use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sheaf_proto::cluster::{Cluster as Told, MemberState, Role};

use super::super::fleet::is_gone;
use super::super::fleet::tests::{cluster, member};
use super::super::rolling::tests::pod;
use super::super::storage::tests::claim;
use super::*;
use crate::build::VolumesRecord;

const CLUSTER: &str = "5ea1c0de-0000-4000-8000-000000000001";

fn wanted(replicas: u32) -> Wanted {
    Wanted { name: "logs".into(), replicas, slots: 256, copies: 2, bytes: 10 << 30, paused: false }
}

/// Three nodes that run, and all is well.
fn seen() -> Seen {
    let told = cluster();
    let by_ordinal = (0..3).map(|n| (n, Told { node: Some(u64::from(n) + 1), ..told.clone() }));
    let record = VolumesRecord { cluster_id: CLUSTER.into(), slots: 256, size: "10Gi".into() };
    Seen {
        replicas: Some(3),
        template_size: Some(Quantity("10Gi".into())),
        pods: (0..3).map(|n| pod(n, true, false)).collect(),
        claims: (0..3).map(|n| claim(n, Some(u64::from(n) + 1))).collect(),
        answers: Answers { by_ordinal: by_ordinal.collect() },
        record: Some(Ok(record)),
        founders: Some(3),
        ..Seen::default()
    }
}

/// Has every node know of members in these states.
fn with_states(mut seen: Seen, states: &[MemberState]) -> Seen {
    for told in seen.answers.by_ordinal.values_mut() {
        told.members = Vec::new();
        for (&state, n) in states.iter().zip(0..) {
            let mut member = member(u64::from(n) + 1, n);
            if is_gone(state) {
                (member.slots, member.owned, member.role) = (0, 0, Role::None);
            }
            member.state = state;
            told.members.push(member);
        }
    }
    seen
}

fn after(wanted: &Wanted, seen: &Seen) -> Plan {
    plan(wanted, seen, true).unwrap()
}

#[test]
fn nothing_is_done_when_all_is_well() {
    let plan = after(&wanted(3), &seen());
    assert_eq!((plan.replicas, plan.step), (3, Step::Set(3)));
    assert_eq!(plan.acts, []);
    assert_eq!(plan.cluster_id.as_deref(), Some(CLUSTER));
    assert_eq!(plan.round(&wanted(3), &seen()).cluster, Cluster::Whole);
}

#[test]
fn a_new_aggregator_begins_with_as_many_pods_as_are_wanted() {
    let plan = after(&wanted(3), &Seen::default());
    assert_eq!((plan.replicas, plan.cluster_id), (3, None));
    assert_eq!(founders(&Seen::default()), None);
}

#[test]
fn volumes_that_were_kept_get_their_pods_back_before_any_of_them_is_drained() {
    let kept = Seen {
        replicas: None,
        pods: Vec::new(),
        answers: Answers::default(),
        claims: (0..5).map(|n| claim(n, Some(u64::from(n) + 1))).collect(),
        ..seen()
    };
    let plan = after(&wanted(3), &kept);
    assert_eq!((plan.replicas, plan.acts), (5, Vec::new()));
}

#[test]
fn volumes_of_another_cluster_are_left_alone() {
    let other = VolumesRecord { cluster_id: "other".into(), slots: 256, size: "10Gi".into() };
    let seen = Seen { record: Some(Ok(other)), ..seen() };
    assert!(matches!(plan(&wanted(3), &seen, true), Err(Mismatch::Cluster { .. })));
    let seen = Seen { record: Some(Err("what is this".into())), ..seen };
    assert!(matches!(plan(&wanted(3), &seen, true), Err(Mismatch::Unreadable(_))));
}

#[test]
fn who_is_on_a_volume_is_written_down_before_the_member_is_drained() {
    let mut seen = seen();
    seen.claims[2].member = None;
    let mark = Act::Mark { claim: seen.claims[2].clone(), member: 3 };
    assert_eq!(after(&wanted(2), &seen).acts, [mark]);
    seen.claims[2].member = Some(3);
    assert_eq!(after(&wanted(2), &seen).acts, [Act::Drain { member: 3 }]);
}

#[test]
fn a_volume_that_is_on_its_way_out_is_nobodys() {
    let mut seen = seen();
    (seen.claims[2].member, seen.claims[2].terminating) = (None, true);
    assert_eq!(after(&wanted(3), &seen).acts, []);
}

#[test]
fn one_replica_fewer_comes_before_the_claim_is_deleted() {
    use MemberState::{Active, Drained};
    let drained = with_states(seen(), &[Active, Active, Drained]);
    let plan = after(&wanted(2), &drained);
    assert_eq!((plan.replicas, plan.acts.as_slice()), (2, [].as_slice()));
    let fewer = Seen { replicas: Some(2), ..drained };
    let plan = after(&wanted(2), &fewer);
    assert_eq!(plan.replicas, 2);
    let (claim, pod) = (fewer.claims[2].clone(), fewer.pods[2].clone());
    assert_eq!(plan.acts, [Act::DeleteClaim(claim), Act::Displace(pod)]);
}

#[test]
fn when_the_target_changes_back_the_drained_member_is_replaced_and_no_other_drained() {
    use MemberState::{Active, Drained, Draining};
    let draining = with_states(seen(), &[Active, Active, Draining]);
    let plan = after(&wanted(3), &draining);
    assert_eq!((plan.replicas, plan.acts), (3, Vec::new()));
    let drained = with_states(seen(), &[Active, Active, Drained]);
    let plan = after(&wanted(3), &drained);
    let (claim, pod) = (drained.claims[2].clone(), drained.pods[2].clone());
    assert_eq!(plan.acts, [Act::DeleteClaim(claim), Act::Displace(pod)]);
    assert_eq!(plan.round(&wanted(3), &drained).displaced, Some("logs-2"));
}

#[test]
fn a_pod_does_not_come_back_on_the_volume_of_a_drained_member() {
    use MemberState::{Active, Drained};
    let mut seen = with_states(seen(), &[Active, Active, Drained]);
    (seen.replicas, seen.pods[2].terminating) = (Some(2), true);
    seen.claims[2].terminating = true;
    let plan = after(&wanted(3), &seen);
    assert_eq!((plan.replicas, plan.acts.as_slice()), (2, [].as_slice()));
    seen.claims.pop();
    assert_eq!(after(&wanted(3), &seen).replicas, 3);
}

#[test]
fn pods_that_would_form_another_cluster_than_is_wanted_make_way() {
    let mut forming = Seen { record: None, claims: Vec::new(), ..seen() };
    for told in forming.answers.by_ordinal.values_mut() {
        (told.formed, told.node, told.leader, told.cluster) = (false, None, None, None);
    }
    assert_eq!(after(&wanted(3), &forming).replicas, 3);
    assert_eq!(founders(&forming), Some(3));
    assert_eq!(after(&wanted(2), &forming).replicas, 0);
    let gone = Seen { replicas: Some(0), pods: Vec::new(), answers: Answers::default(), ..forming };
    assert_eq!(after(&wanted(2), &gone).replicas, 2);
    assert_eq!(founders(&gone), None, "the settings are for nobody");
}

#[test]
fn a_pod_that_runs_and_does_not_answer_may_belong_to_a_cluster() {
    let silent = Seen { record: None, answers: Answers::default(), ..seen() };
    let plan = after(&wanted(2), &silent);
    assert_eq!((plan.replicas, plan.step), (3, Step::Blind));
    let never_ran = silent.pods.iter().map(|pod| Pod { started: false, ..pod.clone() }).collect();
    let never_ran = Seen { pods: never_ran, ..silent };
    assert_eq!(after(&wanted(2), &never_ran).replicas, 0);
}

#[test]
fn a_recorded_cluster_that_does_not_answer_is_waited_for() {
    let silent = Seen { answers: Answers::default(), ..seen() };
    let plan = after(&wanted(2), &silent);
    assert_eq!((plan.step, plan.acts.as_slice()), (Step::Blind, [].as_slice()));
    assert_eq!(plan.round(&wanted(2), &silent).cluster, Cluster::Leaderless);
}

#[test]
fn a_lost_member_is_forgotten_and_then_its_place_is_taken_anew() {
    use MemberState::{Active, Forgotten};
    let mut seen = seen();
    (seen.claims[2].lost, seen.pods[2].ready) = (true, false);
    seen.answers.by_ordinal.remove(&2);
    for told in seen.answers.by_ordinal.values_mut() {
        (told.members[2].slots, told.members[2].owned) = (0, 0);
    }
    let plan = after(&wanted(3), &seen);
    assert_eq!(plan.acts, [Act::Forget { member: 3 }]);
    let forgotten = with_states(seen, &[Active, Active, Forgotten]);
    let plan = after(&wanted(3), &forgotten);
    let (claim, pod) = (forgotten.claims[2].clone(), forgotten.pods[2].clone());
    assert_eq!(plan.acts, [Act::DeleteClaim(claim), Act::Displace(pod)]);
}

#[test]
fn nothing_rolls_while_a_member_is_lost() {
    let mut seen = seen();
    (seen.claims[2].lost, seen.pods[2].ready, seen.pods[2].outdated) = (true, false, true);
    seen.answers.by_ordinal.remove(&2);
    let plan = after(&wanted(3), &seen);
    assert!(!plan.acts.iter().any(|act| matches!(act, Act::Renew(_))), "{:?}", plan.acts);
}

#[test]
fn volumes_grow_first_and_then_the_stateful_set_is_replaced() {
    let larger = Wanted { bytes: 20 << 30, ..wanted(3) };
    let mut seen = seen();
    seen.claims[0].size = 20 << 30;
    let resized = seen.claims[1..].iter().map(|claim| Act::Resize(claim.clone()));
    let plan = after(&larger, &seen);
    assert_eq!(plan.acts, resized.collect::<Vec<_>>());
    assert!(plan.round(&larger, &seen).grows);
    seen.claims.iter_mut().for_each(|claim| claim.size = 20 << 30);
    assert_eq!(after(&larger, &seen).acts, [Act::ReplaceStatefulSet]);
    seen.template_size = Some(Quantity("20Gi".into()));
    assert_eq!(after(&larger, &seen).acts, []);
}

#[test]
fn a_replaced_stateful_set_has_as_many_replicas_as_there_are_pods() {
    let orphans = Seen { replicas: None, template_size: None, ..seen() };
    assert_eq!(after(&wanted(2), &orphans).replicas, 3);
}

#[test]
fn outdated_pods_are_renewed_one_by_one_the_leader_last() {
    let mut seen = seen();
    seen.pods.iter_mut().for_each(|pod| pod.outdated = true);
    let renew = |n: usize, seen: &Seen| [Act::Renew(seen.pods[n].clone())];
    assert_eq!(after(&wanted(3), &seen).acts, renew(2, &seen));
    seen.pods[2].outdated = false;
    seen.pods[1].outdated = false;
    assert_eq!(after(&wanted(3), &seen).acts, renew(0, &seen), "it leads");
    let waits = plan(&wanted(3), &seen, false).unwrap();
    let wanted = wanted(3);
    let round = waits.round(&wanted, &seen);
    assert_eq!(round.rolling, Some(Rolling::Waits("another LogAggregator is rolling")));
}

#[test]
fn a_pod_that_hands_over_is_not_renewed_meanwhile() {
    use MemberState::{Active, Draining};
    let mut seen = with_states(seen(), &[Active, Active, Draining]);
    (seen.pods[2].ready, seen.pods[2].outdated) = (false, true);
    assert_eq!(after(&wanted(2), &seen).acts, []);
    seen.answers.by_ordinal.remove(&2);
    let renewed = Act::Renew(seen.pods[2].clone());
    assert_eq!(after(&wanted(2), &seen).acts, [renewed], "as it is it cannot hand over anything");
}

#[test]
fn pods_are_told_their_zone_first() {
    let mut seen = seen();
    let (pod, zone) = (seen.pods[0].clone(), "a".to_owned());
    seen.untold_zones = vec![(pod.clone(), zone.clone())];
    assert_eq!(after(&wanted(3), &seen).acts, [Act::TellZone { pod, zone }]);
}
