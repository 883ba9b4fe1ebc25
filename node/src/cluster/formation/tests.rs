use super::*;
use crate::checkpoint::identity::Contribution;
use crate::cluster::example::born;

mod model; // nodes that decide against each other, and what may happen to them

/// The birth of the node with this letter.
fn birth(letter: char) -> Birth {
    let contribution = Contribution(std::array::from_fn(|index| letter as u8 ^ index as u8));
    Birth { contribution, address: format!("{letter}:9465"), ..born(letter as u8) }
}

fn births(letters: &str) -> BTreeSet<Birth> {
    letters.chars().map(birth).collect()
}

fn founding(letters: &str) -> Founding {
    Founding { founders: births(letters) }
}

fn answer(letter: char, state: State) -> Answer {
    let birth = birth(letter);
    Answer { address: birth.address.clone(), hello: Ok(Hello { birth, state }) }
}

fn waiting(letter: char, sees: &str) -> Answer {
    answer(letter, State::Waiting { sees: births(sees) })
}

/// Who the node with this letter is, as one of these founders.
fn founder(letter: char, founders: &str) -> Identity {
    founding(founders).founder(birth(letter).uuid).unwrap()
}

/// A member of the cluster that these founders have formed.
fn member(letter: char, founders: &str) -> Answer {
    let (cluster, node) = (founding(founders).cluster(), NodeId(1));
    answer(letter, State::Member { cluster, node, founders: births(founders) })
}

fn silent(letter: char) -> Answer {
    Answer { address: birth(letter).address, hello: Err("connection refused".to_owned()) }
}

/// What the log says of why a node waits.
fn words(decision: Decision) -> Vec<String> {
    match decision {
        Decision::Wait(why) => why.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_is_formed_when_everybody_waits_and_sees_the_same() {
    let seen = ['c', 'a', 'b'].map(|letter| waiting(letter, "abc"));
    for own in ['a', 'b', 'c'] {
        assert_eq!(decide(&birth(own), 3, &seen), Decision::Form(founder(own, "abc")));
    }
}

#[test]
fn a_node_without_initial_members_forms_a_cluster_alone() {
    let identity = alone(birth('a'));
    assert_eq!((identity.node, identity.cluster), (NodeId(1), founding("a").cluster()));
    assert_eq!(identity.fingerprint_key.0, birth('a').contribution.0);
    assert_eq!(identity.founders, births("a"));
}

#[test]
fn a_founder_adopts_what_another_founder_has_formed_whoever_else_is_silent() {
    let seen = [waiting('a', ""), silent('b'), member('c', "abc")];
    assert_eq!(decide(&birth('a'), 3, &seen), Decision::Adopt(founder('a', "abc")));
}

#[test]
fn a_founder_adopts_although_some_members_do_not_know_the_founders() {
    let cluster = founding("abc").cluster();
    let joined = answer('d', State::Member { cluster, node: NodeId(4), founders: births("") });
    let seen = [joined, waiting('a', ""), member('c', "abc")];
    assert_eq!(decide(&birth('a'), 3, &seen), Decision::Adopt(founder('a', "abc")));
}

#[test]
fn a_stranger_joins_through_every_member_that_it_reaches() {
    let seen = [member('a', "abc"), silent('b'), member('c', "abc")];
    let through = vec!["a:9465".to_owned(), "c:9465".to_owned()];
    let cluster = founding("abc").cluster();
    assert_eq!(decide(&birth('d'), 3, &seen), Decision::Join { cluster, through });
}

#[test]
fn nodes_wait_for_one_that_is_silent() {
    let seen = [waiting('a', "ab"), waiting('b', "ab"), silent('c')];
    let words = words(decide(&birth('a'), 3, &seen));
    assert_eq!(words, ["c:9465 is not reached: connection refused"]);
}

#[test]
fn nodes_wait_until_everybody_sees_the_same() {
    let seen = [waiting('a', "abc"), waiting('b', "abc"), waiting('c', "bcd")];
    let expected = "c:9465 does not see the same nodes yet, it lacks a:9465, it sees also d:9465";
    assert_eq!(words(decide(&birth('a'), 3, &seen)), [expected]);
}

#[test]
fn nodes_wait_while_they_are_too_few_or_too_many() {
    for expected in [1, 3] {
        let seen = [waiting('a', "ab"), waiting('b', "ab")];
        let words = words(decide(&birth('a'), expected, &seen));
        let count = format!("2 nodes answer, and a cluster of {expected} is to be formed");
        assert_eq!(words, [count]);
    }
}

#[test]
fn a_node_that_is_reached_by_two_addresses_counts_once() {
    let seen = [waiting('a', "ab"), waiting('a', "ab"), waiting('b', "ab")];
    assert_eq!(decide(&birth('a'), 2, &seen), Decision::Form(founder('a', "ab")));
}

#[test]
fn a_node_that_is_no_initial_member_waits_for_a_cluster_to_join() {
    let seen = [waiting('a', "ab"), waiting('b', "ab")];
    let words = words(decide(&birth('d'), 2, &seen));
    assert!(words[0].starts_with("this node is not one of the initial members"), "{words:?}");
}

#[test]
fn a_node_enters_neither_of_two_clusters() {
    let seen = [waiting('a', ""), member('b', "ab"), member('c', "cd")];
    let words = words(decide(&birth('a'), 3, &seen));
    assert!(words[0].starts_with("the initial members belong to different clusters"), "{words:?}");
    assert!(words[0].contains(&format!("c:9465 to {}", founding("cd").cluster())), "{words:?}");
}

#[test]
fn a_copied_volume_is_noticed() {
    let mut copy = waiting('b', "abc");
    if let Ok(hello) = &mut copy.hello {
        hello.birth.uuid = birth('a').uuid;
    }
    let seen = [waiting('a', "ab"), copy.clone()];
    let expected = "the volumes of a:9465, b:9465 are copies of one: empty all but one";
    assert!(words(decide(&birth('a'), 2, &seen)).contains(&expected.to_owned()));

    if let Ok(hello) = &mut copy.hello {
        let Ok(Hello { state, .. }) = member('a', "abc").hello else { unreachable!() };
        hello.state = state;
    }
    assert_eq!(words(decide(&birth('a'), 2, &[waiting('a', ""), copy])), [expected]);
}

#[test]
fn founders_that_do_not_make_the_cluster_are_not_believed() {
    let cluster = founding("ab").cluster();
    let state = State::Member { cluster, node: NodeId(1), founders: births("abc") };
    let words = words(decide(&birth('a'), 3, &[waiting('a', ""), answer('b', state)]));
    assert_eq!(words, ["b:9465 names founders that do not make the cluster that it names"]);
}

/// The ids were computed by a separate implementation of SipHash-1-3-128.
#[test]
fn the_id_of_a_cluster_is_fixed() {
    let of = |founders: &[u8]| Founding { founders: founders.iter().copied().map(born).collect() };
    assert_eq!(of(&[1]).cluster().to_string(), "abf064c0-b862-8641-bbd7-deb711611e19");
    assert_eq!(of(&[3, 1, 2]).cluster().to_string(), "78c0c8d2-2365-84d4-9c91-62c3b8a311fc");
}

#[test]
fn founders_are_numbered_by_their_uuids_and_share_one_key() {
    let founding = founding("cab");
    let ids: Vec<_> = founding.members().map(|(id, birth)| (id.0, birth.uuid)).collect();
    assert_eq!(ids, [(1, birth('a').uuid), (2, birth('b').uuid), (3, birth('c').uuid)]);
    assert_eq!(founding.founder(birth('b').uuid).map(|own| own.node), Some(NodeId(2)));
    assert_eq!(founding.founder(birth('d').uuid), None);
    // 'a' ^ 'b' ^ 'c' is 96, and of the three equal indexes one is left.
    assert_eq!(founding.fingerprint_key().0, std::array::from_fn(|index| 96 ^ index as u8));
}

#[test]
fn a_contribution_is_never_printed() {
    assert!(format!("{:?}", birth('a')).contains("contribution: Contribution(..)"));
}
