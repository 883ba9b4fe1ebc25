//! How pods are replaced.

use super::*;

#[tokio::test]
async fn nodes_that_do_not_answer_a_drain_are_rolled_all_the_same() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.set_replicas(2);
    world.nodes.stall(true);
    world.new_revision("new");
    let asked = World::changes(&world.round().await);
    assert!(asked.contains(&"DELETE pods/logs-1".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn outdated_pods_are_deleted_one_by_one() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.new_revision("new");
    let asked = World::changes(&world.round().await);
    assert!(asked.contains(&"DELETE pods/logs-2".to_owned()), "{asked:?}");
    let asked = World::changes(&world.round().await);
    assert!(
        !asked.iter().any(|it| it.starts_with("DELETE")),
        "the first one is not back: {asked:?}"
    );
    world.add_pod(2, "new");
    let asked = World::changes(&world.round().await);
    assert!(asked.contains(&"DELETE pods/logs-1".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn one_aggregator_rolls_at_a_time_also_where_namespaces_are_looked_after_apart() {
    let mut first = World::new(json!({"replicas": 3}));
    first.scope = NAMESPACED;
    let mut second = first.beside("stall");
    for world in [&mut first, &mut second] {
        world.run().await;
        world.settle().await;
        world.new_revision("new");
    }
    let has_begun = |asked: &[String]| asked.contains(&"DELETE pods/logs-2".to_owned());
    assert!(has_begun(&World::changes(&first.round().await)));
    let asked = World::changes(&second.round().await);
    assert!(!has_begun(&asked), "both roll: {asked:?}");
    for n in [2, 1, 0] {
        first.add_pod(n, "new");
        first.round().await;
    }
    let asked = World::changes(&second.round().await);
    assert!(has_begun(&asked), "it has its turn now: {asked:?}");
    let told = first.metrics.text().unwrap();
    assert!(told.lines().any(|line| line == "sheaf_operator_aggregators 2"), "{told}");
}
