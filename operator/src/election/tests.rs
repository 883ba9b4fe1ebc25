use http::{Method, StatusCode};
use serde_json::json;

use super::*;
use crate::scripted::Server;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/sheaf-system/leases/sheaf-operator";

fn candidate(server: &Server, me: &str) -> Candidate {
    Candidate::new(server.client(), "sheaf-system", "sheaf-operator", me)
}

fn holder(server: &Server) -> Option<String> {
    let lease = server.get(PATH)?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}

/// A lease that another operator holds.
fn held_by_another(server: &Server) {
    server.put(
        PATH,
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "sheaf-operator"}, "spec": {"holderIdentity": "other"},
        }),
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_candidate_makes_the_lease_and_holds_it() {
    let server = Server::default();
    candidate(&server, "one").elected(|| {}).await;
    assert_eq!(holder(&server).as_deref(), Some("one"));
    let methods: Vec<Method> = server.asked().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, [Method::GET, Method::POST]);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_waits_until_the_holder_was_silent_for_the_whole_lease() {
    let server = Server::default();
    held_by_another(&server);
    let mut one = candidate(&server, "one");
    let begun = Instant::now();
    one.elected(|| {}).await;
    assert!(begun.elapsed() >= LEASE, "{:?}", begun.elapsed());
    assert_eq!(holder(&server).as_deref(), Some("one"));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_renews_keeps_others_out_whatever_its_clock_says() {
    let server = Server::default();
    held_by_another(&server);
    let renewing = server.clone();
    tokio::spawn(async move {
        loop {
            sleep(EVERY).await;
            held_by_another(&renewing);
        }
    });
    let mut one = candidate(&server, "one");
    assert!(timeout(10 * LEASE, one.elected(|| {})).await.is_err());
    assert_eq!(holder(&server).as_deref(), Some("other"));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_restarted_goes_on_at_once() {
    let server = Server::default();
    candidate(&server, "one").elected(|| {}).await;
    let begun = Instant::now();
    candidate(&server, "one").elected(|| {}).await;
    assert!(begun.elapsed() < EVERY);
}

#[tokio::test(start_paused = true)]
async fn a_holder_renews_until_another_one_takes_the_lease() {
    let server = Server::default();
    let mut one = candidate(&server, "one");
    let held = one.elected(|| {}).await;
    let taking = server.clone();
    let taker = async {
        sleep(10 * LEASE).await;
        held_by_another(&taking);
    };
    let begun = Instant::now();
    let ((), ()) = tokio::join!(one.keep(held), taker);
    assert!(begun.elapsed() >= 10 * LEASE && begun.elapsed() <= 10 * LEASE + EVERY);
    one.release().await.unwrap();
    assert_eq!(holder(&server).as_deref(), Some("other"), "it is not its own to give back");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_before_anybody_else_may_begin() {
    for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::FORBIDDEN] {
        let server = Server::default();
        let mut one = candidate(&server, "one");
        let held = one.elected(|| {}).await;
        server.refuse("PUT leases/sheaf-operator", status, "no");
        let begun = Instant::now();
        one.keep(held).await;
        assert!(begun.elapsed() <= ACT_WITHIN, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_costs_nothing() {
    let server = Server::default();
    let mut one = candidate(&server, "one");
    let held = one.elected(|| {}).await;
    server.refuse("PUT leases/sheaf-operator", StatusCode::SERVICE_UNAVAILABLE, "no");
    let passing = async {
        sleep(EVERY + AGAIN_AFTER).await;
        server.relent();
        sleep(10 * LEASE).await;
    };
    tokio::select! {
        () = one.keep(held) => panic!("it gave up"),
        () = passing => {}
    }
    assert_eq!(holder(&server).as_deref(), Some("one"));
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_stops_gives_the_lease_back() {
    let server = Server::default();
    let mut one = candidate(&server, "one");
    one.elected(|| {}).await;
    one.release().await.unwrap();
    assert_eq!(holder(&server), None);
    let begun = Instant::now();
    candidate(&server, "two").elected(|| {}).await;
    assert!(begun.elapsed() < EVERY);
}

#[tokio::test(start_paused = true)]
async fn of_two_candidates_for_one_version_one_gets_it() {
    let server = Server::default();
    server.put(PATH, json!({"metadata": {"name": "sheaf-operator"}, "spec": {}}));
    let (mut one, mut two) = (candidate(&server, "one"), candidate(&server, "two"));
    let (first, second) = tokio::join!(one.try_once(), two.try_once());
    let winners = [first, second].into_iter().filter(|held| matches!(held, Ok(Some(_)))).count();
    assert_eq!(winners, 1);
}
