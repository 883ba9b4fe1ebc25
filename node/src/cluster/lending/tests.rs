use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::aggregation::distinct_logs::count_table::{MalformedTable, Table, merge};
use crate::cluster::cutting::AskStamped as _;
use crate::cluster::example::mesh::Mesh;
use crate::cluster::example::{born, keeping};
use crate::cluster::stamping::Stamping;
use crate::event::node::NodeId;
use crate::event::time::{Clock, SECOND};
use crate::flush::example::node::{Life, Node, Source, everybody_waits};
use crate::flush::example::{Cluster, at, entry, framed, slots};
use crate::flush::feed::Consensus as _;
use crate::journal::{AppendError, Events, Extent, Mirror, Opening, Replay};
use crate::store::{Disk, Store};

const END: UnixNanos = UnixNanos(10 * SECOND);

/// Node 1, which has flushed the first window of its slots, the first 128. In slot 7 it has
/// two distinct records, in slot 9 one.
struct Setting {
    cluster: Arc<Cluster>,
    source: Arc<Source>,
    lending: Lending,
    _node: Node,
    _life: Life,
}

impl Setting {
    async fn new() -> Setting {
        let (cluster, source) = (Cluster::of(2), Arc::new(Source::default()));
        cluster.place("128-255", 2);
        let segment = cluster.open(1);
        source.appended.send_modify(|appended| {
            appended.push(segment, at(5), entry(0, &[(7, 1), (7, 2), (9, 1), (200, 1)]));
        });
        cluster.cut(10, &[(segment, 1)]);
        let node = Node::new(1, &cluster, &source, u64::MAX);
        let life = node.start();
        everybody_waits().await;
        let store = Arc::clone(&node.store);
        let (clock, replay) = (Clock::new(|| at(11)), Replay::default());
        let (journal, writer) = Journal::new(store, &replay, clock, Box::new(|_| ()));
        tokio::spawn(writer.run_as_task());
        let (floor, lease, mirrors) = (at(1), at(20), Vec::new());
        journal.open(Opening { segment, floor, lease, mirrors }).await.unwrap();
        let lending = Lending {
            journal,
            copies: Copies::open(Arc::clone(&node.store)).unwrap(),
            facts: cluster.facts(),
            results: Results::new(Arc::clone(&node.store)),
            keeping: keeping(&node, &cluster),
            folding: life.folding.clone(),
            rejected: Arc::new(|| [("malformed".to_owned(), 3)].into()),
        };
        Setting { cluster, source, lending, _node: node, _life: life }
    }

    async fn append(&self, records: &[(u8, u64)]) {
        let framed = framed(0, records);
        let events = Events::of_records(records.len() as u64);
        self.lending.journal.append(framed, events, Box::new(())).await.unwrap();
    }
}

fn declined<T>(answer: Result<T, Declined>) -> String {
    match answer {
        Err(Declined::NotNow(reason)) => reason,
        Err(Declined::Never(reason)) => panic!("never: {reason}"),
        Ok(_) => panic!("it was answered"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_of_the_node_is_given_out_and_no_other() {
    let it = Setting::new().await;
    it.append(&[(7, 1), (200, 1)]).await;
    it.append(&[(200, 2)]).await;
    let segment = it.lending.journal.segment();
    let mut batches = it.lending.follow(segment, 0, slots("200")).unwrap();
    let batch = batches.next().await.unwrap().unwrap();
    let indices: Vec<_> = batch.parts.iter().map(|part| part.index).collect();
    assert_eq!((batch.next, indices), (2, vec![0, 1]));
    let other = it.lending.follow(segment + 1, 0, slots("200"));
    assert_eq!(declined(other), format!("this node has no segment {}", segment + 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_stamped_is_told_here_and_to_others() {
    let it = Setting::new().await;
    it.append(&[(7, 1), (9, 1)]).await;
    let before = Extent { entries: 1, records: 2, chunks: 0 };
    let told = BTreeMap::from([(it.lending.journal.segment(), Stamped { before, last: at(11) })]);
    assert_eq!(it.lending.stamped(at(12), at(22)).await, Ok(told.clone()));

    let mesh = Arc::new(Mesh::default());
    let _lender = mesh.lend(2, Arc::new(it.lending.clone()));
    let (own, members) = (it.lending.clone(), mesh.member());
    let stamping = Stamping { node: NodeId(1), own, members };
    let ask = |node: u8| {
        let address = born(node).address;
        let stamping = &stamping;
        async move {
            let within = Duration::from_secs(1);
            stamping.stamped(NodeId(node.into()), &address, at(12), at(22), within).await
        }
    };
    assert_eq!(ask(1).await, Ok(told.clone()), "nobody is at its own address");
    assert_eq!(ask(2).await, Ok(told));
    assert!(ask(3).await.unwrap_err().reason.contains("nobody is at node-3:9465"));
    it.lending.journal.close();
    everybody_waits().await;
    assert!(ask(1).await.is_err() && ask(2).await.is_err());
}

/// Another copy that never has anything.
struct Silent;

impl Mirror for Silent {
    fn write(&self, _: u64, _: Vec<Bytes>) {}
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_copies_are_silent_is_not_waited_for_even_by_itself() {
    let it = Setting::new().await;
    let (floor, lease, mirrors) = (at(1), at(20), vec![Arc::new(Silent) as _]);
    it.lending.journal.open(Opening { segment: 7, floor, lease, mirrors }).await.unwrap();
    let event = Events::of_records(1);
    let append = it.lending.journal.append(framed(0, &[(7, 1)]), event, Box::new(()));
    timeout(Duration::from_secs(1), append).await.unwrap_err();
    let (own, members) = (it.lending.clone(), Arc::new(Mesh::default()).member());
    let stamping = Stamping { node: NodeId(1), own, members };
    let within = Duration::from_secs(1);
    let asked = stamping.stamped(NodeId(1), "", at(12), at(22), within);
    let told = timeout(2 * within, asked).await.unwrap();
    assert_eq!(told.unwrap_err().reason, "no answer within 1s");
}

#[tokio::test(start_paused = true)]
async fn a_copy_says_nothing_before_a_slow_disk_has_it() {
    let (it, disk, moment) = (Setting::new().await, Disk::default(), Duration::from_secs(1));
    let copies = Copies::open(Arc::new(Store::in_memory(&disk).unwrap())).unwrap();
    let lending = Lending { copies, ..it.lending.clone() };
    lending.begin_copy(7).unwrap();
    // So that it waits for long, whatever was drawn before.
    fastrand::seed(1);
    disk.delay_writes(Some(100 * moment));
    timeout(moment, lending.copy(7, 0, Vec::new())).await.unwrap_err();
    timeout(moment, lending.fence(7)).await.unwrap_err();
    assert_eq!(lending.copy(7, 0, Vec::new()).await, Ok(0), "it was not fenced");
}

#[tokio::test(start_paused = true)]
async fn a_node_appends_as_long_as_those_who_ask_allow_it() {
    let it = Setting::new().await;
    let event = Events::of_records(1);
    let append = || it.lending.journal.append(framed(0, &[(7, 1)]), event, Box::new(()));
    it.lending.stamped(at(20), at(18)).await.unwrap();
    assert_eq!(append().await, Err(AppendError::NoLease));
    let told = it.lending.stamped(at(21), at(22)).await.unwrap();
    assert_eq!(told[&it.lending.journal.segment()], Stamped::default(), "nothing is durable");
    append().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tables_are_listed_and_given_out_for_the_slots_that_are_asked_for() {
    let it = Setting::new().await;
    let [listed] = <[_; 1]>::try_from(it.lending.tables(0, END).unwrap()).unwrap();
    assert_eq!((listed.slots, &listed.summary), (slots("0-127"), &None));
    assert_eq!(it.lending.tables(0, at(20)).unwrap(), []);
    for (of, distinct) in [("0-255", 3), ("7", 2), ("8-9", 1), ("200", 0)] {
        let chunks = it.lending.results(0, END, listed.table, slots(of)).unwrap();
        let chunks: Vec<Bytes> = chunks.map(Result::unwrap).collect().await;
        let chunks = chunks.into_iter().map(Ok::<_, MalformedTable>);
        let merged = merge([Table { slots: slots("0-255"), chunks }], 0, 9).unwrap();
        assert_eq!(merged.counts.distinct, distinct, "slots {of}");
    }
    let other = it.lending.results(0, END, listed.table ^ 1, slots("7"));
    assert!(declined(other).starts_with("this node has no table"));
}

#[tokio::test(start_paused = true)]
async fn what_a_node_has_at_the_moment_is_told_as_json() {
    let it = Setting::new().await;
    it.append(&[(7, 1), (9, 1)]).await;
    it.source.appended.send_modify(|all| all.push(1, at(11), entry(0, &[(7, 1), (7, 2)])));
    it.cluster.cut(12, &[(1, 2)]);
    everybody_waits().await;
    let live = Holdings::live(&it.lending, 9).await.unwrap();
    let live: Live = serde_json::from_slice(&live).unwrap();
    assert_eq!((live.accepted, live.rejected), (2, [("malformed".to_owned(), 3)].into()));
    assert_eq!(live.pending.unwrap().records, [(0, 2)].into());
    let [open] = <[_; 1]>::try_from(live.windows).unwrap();
    assert_eq!((open.records, open.distinct, open.counts.len()), (2, 2, 1));
    let short = Lending::live(&it.lending, 0).await;
    assert_eq!((short.windows[0].counts.len(), short.windows[0].other.count), (0, 2));
}
