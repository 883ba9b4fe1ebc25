use super::*;
use crate::checkpoint::facts::command::Command;
use crate::cluster::example::keeping;
use crate::cluster::example::mesh::{Lender, Mesh};
use crate::cluster::lending::Lending;
use crate::event::time::{SECOND, UnixNanos};
use crate::flush::example::node::{Life, Node, Source, everybody_waits};
use crate::flush::example::{Cluster, at, entry, slots, window};
use crate::flush::feed::Consensus as _;
use crate::journal::copies::Copies;
use crate::store::{Disk, Store};

const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10 * SECOND) };

/// Nodes 1 and 2, which have flushed the first window; node 1 gathers.
struct Setting {
    cluster: Arc<Cluster>,
    mesh: Arc<Mesh>,
    nodes: [Node; 2],
    lives: [Life; 2],
    gathering: Gathering,
}

impl Setting {
    /// Node 1 has the first so many slots. Slot 7 has two distinct records of three, slot 200
    /// has one of three.
    async fn new(slots_of_first: u16) -> Setting {
        let (cluster, source) = (Cluster::of(2), Arc::new(Source::default()));
        let rest: SlotSet =
            (0..=u8::MAX).filter(|&slot| u16::from(slot) >= slots_of_first).collect();
        cluster.place(&rest.to_string(), 2);
        let segment = cluster.open(1);
        source.appended.send_modify(|appended| {
            for body in [1, 2, 1] {
                appended.push(segment, at(5), entry(0, &[(7, body), (200, 1)]));
            }
        });
        cluster.cut(10, &[(segment, 3)]);
        let nodes = [1, 2].map(|id| Node::new(id, &cluster, &source, u64::MAX));
        let lives = [nodes[0].start(), nodes[1].start()];
        everybody_waits().await;
        let (mesh, facts) = (Arc::new(Mesh::default()), cluster.facts());
        let results = Results::new(Arc::clone(&nodes[0].store));
        let gathering = Gathering { node: NodeId(1), results, members: mesh.member(), facts };
        Setting { cluster, mesh, nodes, lives, gathering }
    }

    fn lend(&self) -> Lender {
        self.lend_from(&self.nodes[1].store)
    }

    /// Has node 2 answer, with the results that are in `store`.
    fn lend_from(&self, store: &Arc<Store>) -> Lender {
        let lending = Lending {
            journal: self.nodes[1].journal(),
            copies: Copies::open(Arc::clone(&self.nodes[1].store)).unwrap(),
            facts: self.cluster.facts(),
            results: Results::new(Arc::clone(store)),
            keeping: keeping(&self.nodes[1], &self.cluster),
            folding: self.lives[1].folding.clone(),
            rejected: Arc::new(Default::default),
        };
        self.mesh.lend(2, Arc::new(lending))
    }

    /// What nodes 1 and 2 have of the window: the slots, accepted records and distinct ones.
    async fn parts(&self) -> [Option<(String, u64, u64)>; 2] {
        let mut parts = [None, None];
        for ((part, node), id) in parts.iter_mut().zip(&self.nodes).zip(1..) {
            let results = Results::new(Arc::clone(&node.store));
            let gathering = Gathering { node: NodeId(id), results, ..self.gathering.clone() };
            let told = gathering.part(0, FIRST, 9).await.unwrap();
            *part = told.map(|told| {
                assert_eq!((told.complete, told.revision, told.settled), (false, 0, false));
                (told.slots.unwrap(), told.records, told.distinct)
            });
        }
        parts
    }

    /// The slots whose results nobody has, and who was reached.
    async fn missing(&self) -> (SlotSet, Vec<NodeId>) {
        match self.counts().await {
            Err(GatherError::Missing { slots, reached }) => (slots, reached.into_iter().collect()),
            other => panic!("{other:?}"),
        }
    }

    async fn counts(&self) -> Result<WindowCounts, GatherError> {
        self.gathering.counts(0, FIRST, 9).await
    }

    /// Has a node keep the results of the other one, as another owner of its slots.
    fn copy(&self, from: usize, to: usize) {
        let [from, to] = [from, to].map(|node| Results::new(Arc::clone(&self.nodes[node].store)));
        let [found] = <[_; 1]>::try_from(from.find(0, FIRST.end).unwrap()).unwrap();
        let (mut writing, slots) = (to.begin(0, FIRST), found.slots);
        writing.count_records(found.records.clone());
        from.chunks(0, FIRST.end, found).for_each(|chunk| writing.push(chunk.unwrap()).unwrap());
        to.finish(writing, slots, None).unwrap();
    }

    /// Has a node say that a table, or nothing, is what some slots have.
    fn keep(&self, node: usize, of: &str, chunks: &[Vec<u8>]) {
        let results = Results::new(Arc::clone(&self.nodes[node].store));
        let mut writing = results.begin(0, FIRST);
        chunks.iter().for_each(|chunk| writing.push(chunk.clone()).unwrap());
        results.finish(writing, slots(of), None).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_results_of_all_slots_are_added_up() {
    let it = Setting::new(128).await;
    let _lender = it.lend();
    let counts = it.counts().await.unwrap();
    assert_eq!((counts.records, counts.distinct, counts.unknown), (6, 3, 0));
    assert_eq!((counts.counts.len(), counts.counts[0].count), (1, 3));
    assert_eq!((counts.complete, counts.aggregation.as_str()), (false, "by-foo"));
    let short = it.gathering.counts(0, FIRST, 0).await.unwrap();
    assert_eq!((short.counts.len(), short.other.values, short.other.count), (0, 1, 3));
}

fn part(slots: &str, records: u64, distinct: u64) -> Option<(String, u64, u64)> {
    Some((slots.to_owned(), records, distinct))
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_all_nodes_add_up_to_the_window() {
    let it = Setting::new(128).await;
    assert_eq!(it.parts().await, [part("0-127", 3, 2), part("128-255", 3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_part_is_of_the_slots_that_a_node_leads_and_has_the_results_of() {
    let it = Setting::new(128).await;
    it.copy(0, 1);
    assert_eq!(it.parts().await, [part("0-127", 3, 2), part("128-255", 3, 1)]);
    it.cluster.place("0-99", 2);
    assert_eq!(it.parts().await, [part("100-127", 0, 0), part("0-99,128-255", 6, 3)]);
    it.cluster.place("128-255", 1);
    assert_eq!(it.parts().await, [part("100-127", 0, 0), part("0-99", 3, 2)]);
    it.cluster.place("100-127", 2);
    assert_eq!(it.parts().await, [None, part("0-127", 3, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_part_has_no_slots_of_which_the_window_may_still_change() {
    let it = Setting::new(128).await;
    let cut = it.cluster.cut(20, &[(1, 3)]);
    it.cluster.flush(1, "0-9", window(10, 20), cut);
    it.cluster.claim(1, "10-19", window(10, 20), cut);
    let results = &it.gathering.results;
    results.finish(results.begin(0, window(10, 20)), slots("0-19"), None).unwrap();
    let part = it.gathering.part(0, window(10, 20), 9).await.unwrap().unwrap();
    assert_eq!(part.slots.unwrap(), "0-9");
    for unknown in [window(20, 30), window(30, 40)] {
        assert_eq!(it.gathering.part(0, unknown, 9).await.unwrap(), None);
    }
    assert_eq!(it.gathering.part(7, FIRST, 9).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn what_one_node_counted_alone_is_told_by_whoever_leads_the_first_slot() {
    let it = Setting::new(256).await;
    assert_eq!(it.parts().await, [part("0-255", 6, 3), None]);
    let [own] = <[_; 1]>::try_from(it.gathering.results.find(0, FIRST.end).unwrap()).unwrap();
    let results = Results::new(Arc::clone(&it.nodes[1].store));
    results.finish(results.begin(0, FIRST), own.slots, own.summary).unwrap();
    assert_eq!(it.parts().await, [part("0-255", 6, 3), None]);
    it.cluster.place("0-9", 2);
    assert_eq!(it.parts().await, [None, part("0-255", 6, 3)]);
}

#[tokio::test(start_paused = true)]
async fn slots_that_nobody_who_is_reached_has_are_missing() {
    let it = Setting::new(128).await;
    assert_eq!(it.missing().await, (slots("128-255"), vec![NodeId(1)]));
    let _lender = it.lend();
    it.counts().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_says_that_it_has_nothing_was_reached() {
    let it = Setting::new(128).await;
    let _lender = it.lend_from(&Arc::new(Store::in_memory(&Disk::default()).unwrap()));
    assert_eq!(it.missing().await, (slots("128-255"), vec![NodeId(1), NodeId(2)]));
}

#[tokio::test(start_paused = true)]
async fn slots_of_which_several_have_the_results_count_once() {
    let it = Setting::new(128).await;
    let _lender = it.lend();
    it.copy(0, 1);
    assert_eq!(it.counts().await.unwrap().distinct, 3);
}

#[tokio::test(start_paused = true)]
async fn what_the_owners_have_comes_before_what_others_do() {
    let it = Setting::new(128).await;
    let _lender = it.lend();
    it.keep(0, "128-255", &[]);
    assert_eq!(it.counts().await.unwrap().distinct, 3);
}

#[tokio::test(start_paused = true)]
async fn an_owner_whose_results_were_superseded_is_doubted_where_another_node_has_those_that_count()
{
    for superseded in ["128-255", "190-210"] {
        let it = Setting::new(128).await;
        let _lender = it.lend();
        it.copy(1, 0);
        it.keep(1, superseded, &[]);
        let counts = it.counts().await.unwrap();
        assert_eq!((counts.records, counts.distinct, counts.counts[0].count), (6, 3, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn results_that_were_not_claimed_are_refused() {
    let it = Setting::new(128).await;
    let _lender = it.lend();
    it.keep(1, "128-255", &[]);
    let refused = it.counts().await.unwrap_err();
    assert!(matches!(refused, GatherError::Mismatch), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn one_node_that_has_all_slots_has_their_summary() {
    for (first, lends) in [(256, false), (0, true)] {
        let it = Setting::new(first).await;
        let _lender = lends.then(|| it.lend());
        let counts = it.counts().await.unwrap();
        assert_eq!((counts.records, counts.distinct), (6, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_summary_of_something_else_is_refused() {
    let it = Setting::new(256).await;
    let results = &it.gathering.results;
    let [own] = <[_; 1]>::try_from(results.find(0, FIRST.end).unwrap()).unwrap();
    let other = WindowCounts { distinct: 4, ..own.summary.unwrap() };
    results.finish(results.begin(0, FIRST), slots("0-255"), Some(other)).unwrap();
    let refused = it.counts().await.unwrap_err();
    assert!(matches!(refused, GatherError::Mismatch), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_not_complete_has_no_counts() {
    let it = Setting::new(256).await;
    let end = it.cluster.cut(20, &[(1, 3)]);
    it.cluster.place("0", 2);
    it.cluster.claim(2, "0", window(10, 20), end);
    for other in [window(10, 20), window(20, 30), window(0, 5)] {
        let incomplete = it.gathering.counts(0, other, 9).await.unwrap_err();
        assert!(matches!(incomplete, GatherError::Incomplete), "{incomplete}");
    }
    let incomplete = it.gathering.counts(7, FIRST, 9).await.unwrap_err();
    assert!(matches!(incomplete, GatherError::Incomplete), "{incomplete}");
}

#[tokio::test(start_paused = true)]
async fn those_who_answer_say_what_they_have_at_the_moment() {
    let it = Setting::new(128).await;
    let within = Duration::from_secs(1);
    assert_eq!(it.gathering.live_of_others(9, within).await.len(), 0);
    let _lender = it.lend();
    let [live] = <[_; 1]>::try_from(it.gathering.live_of_others(9, within).await).ok().unwrap();
    assert_eq!(live.pending.unwrap().records, [(0, 0)].into());
    it.cluster.place("128-255", 1);
    it.cluster.apply(Command::Drain { node: NodeId(2) });
    it.cluster.apply(Command::Drained { node: NodeId(2) });
    assert_eq!(it.gathering.live_of_others(9, within).await.len(), 0, "it is gone");
}
