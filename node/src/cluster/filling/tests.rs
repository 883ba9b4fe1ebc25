use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::aggregation::distinct_logs::count_table::{Table, merge};
use crate::aggregation::distinct_logs::{MemoryLimit, OpenWindow};
use crate::checkpoint::carries::Carries;
use crate::checkpoint::facts::SegmentId;
use crate::checkpoint::facts::command::Change;
use crate::checkpoint::identity::{Birth, Identity};
use crate::checkpoint::raft::{Decision, Rpc};
use crate::cluster::example::identity;
use crate::cluster::formation::Hello;
use crate::cluster::lending::Lending;
use crate::cluster::peers::{
    Answers, Batches, CarriedParts, Chunks, Declined, Holdings as _, Kept, Listed, Peers, Reply,
    Stamped,
};
use crate::event::entry::{Entry, Section};
use crate::event::time::{Clock, UnixNanos, Window};
use crate::flush::carried::CarriedWindows;
use crate::flush::example::{Cluster, at, entry, slots, window};
use crate::flush::folding::Folding;
use crate::flush::results::{Results, ResultsError};
use crate::journal::{Journal, Replay};
use crate::store::{Disk, Store};

const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10_000_000_000) };
const MEMORY: MemoryLimit = MemoryLimit(1 << 20);
/// Nothing here takes this long.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a node has on its disk.
struct Disks {
    keeping: Keeping,
    store: Arc<Store>,
    _scratch: tempfile::TempDir,
}

impl Disks {
    fn new(node: u64, cluster: &Cluster) -> Disks {
        let scratch = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let carries = Carries::new(Arc::clone(&store));
        let carried = CarriedWindows { carries, scratch: scratch.path().to_owned() };
        let results = Results::new(Arc::clone(&store));
        let (node, facts) = (NodeId(node), cluster.facts());
        let keeping = Keeping { node, results, carried, facts };
        Disks { keeping, store, _scratch: scratch }
    }

    fn fold(&self, records: &[(u8, u64)]) -> OpenWindow {
        let mut open = OpenWindow::new(MEMORY, &self.keeping.carried.scratch, None);
        for section in Entry::parse(&entry(0, records)).unwrap().sections() {
            let (_, Section::DistinctLogs(section)) = section.unwrap();
            open.fold(&section).unwrap();
        }
        open
    }

    /// Keeps results of the first window, and carries the second one.
    fn fill(&self, records: &[(u8, u64)]) {
        let Keeping { results, carried, .. } = &self.keeping;
        let mut writing = results.begin(0, FIRST);
        let push = |chunk| writing.push(chunk).map_err(FlushError::from);
        self.fold(records).close_with_table(9, push).unwrap();
        results.finish(writing, slots("0-255"), None).unwrap();
        let state = json!({ "state": self.fold(records).carry().unwrap(), "seconds": [] });
        let (window, next) = (window(10, 20), BTreeMap::new());
        let carry = Carry { aggregation: 0, window, slots: slots("0-255"), next, state };
        carried.carries.record(&[carry]).unwrap();
    }

    /// The slots of which there are results, and how many distinct records these have.
    fn results(&self) -> (String, u64) {
        let (results, mut of) = (&self.keeping.results, SlotSet::default());
        let tables = results.find(0, FIRST.end).unwrap().into_iter().map(|found| {
            of = of.union(&found.slots);
            let slots = found.slots;
            let chunks = results.chunks(0, FIRST.end, found).map(|c| Ok::<_, ResultsError>(c?));
            Table { slots, chunks }
        });
        let merged = merge(tables, 0, 9).unwrap();
        (of.to_string(), merged.counts.distinct)
    }

    /// What others may ask of it, at an address.
    async fn serve(&self) -> (String, CancellationToken) {
        let store = Arc::clone(&self.store);
        let clock = Clock::new(|| at(1));
        let journal = Journal::open(store, &Replay::default(), None, clock, Box::new(|_| ()));
        let lending = Lending {
            journal: journal.unwrap().0,
            results: self.keeping.results.clone(),
            keeping: self.keeping.clone(),
            folding: Folding::new().0,
            rejected: Arc::new(BTreeMap::new),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let off = CancellationToken::new();
        let incoming = peers::accept(listener);
        tokio::spawn(peers::serve(incoming, Arc::new(Owner(lending)), off.clone()));
        (address, off)
    }
}

/// A node that tells what it keeps, and nothing else.
struct Owner(Lending);

fn no<T>() -> Result<T, Declined> {
    Err(Declined::Never("nobody asks this".to_owned()))
}

impl Answers for Owner {
    fn hello(&self) -> Result<Hello, Declined> {
        no()
    }

    fn identity(&self) -> Result<Arc<Identity>, Declined> {
        Ok(Arc::new(identity(1)))
    }

    async fn join(&self, _: Birth) -> Result<Reply<Identity>, Declined> {
        no()
    }

    async fn raft(&self, _: Rpc, _: Bytes) -> Result<Bytes, Declined> {
        no()
    }

    async fn propose(&self, _: Command) -> Result<Reply<Decision>, Declined> {
        no()
    }

    async fn stamped(
        &self,
        _: UnixNanos,
        _: UnixNanos,
    ) -> Result<BTreeMap<SegmentId, Stamped>, Declined> {
        no()
    }

    fn follow(&self, _: SegmentId, _: u64, _: SlotSet) -> Result<Batches, Declined> {
        no()
    }

    fn tables(&self, aggregation: u32, end: UnixNanos) -> Result<Vec<Listed>, Declined> {
        self.0.tables(aggregation, end)
    }

    fn results(
        &self,
        aggregation: u32,
        end: UnixNanos,
        table: u64,
        slots: SlotSet,
    ) -> Result<Chunks, Declined> {
        self.0.results(aggregation, end, table, slots)
    }

    async fn keep(&self, _: NodeId, _: Kept, _: Chunks) -> Result<(), Declined> {
        no()
    }

    fn carried(&self, slots: SlotSet) -> Result<CarriedParts, Declined> {
        self.0.carried(slots)
    }

    async fn live(&self, _: u32) -> Result<Bytes, Declined> {
        no()
    }
}

/// Slots 0 to 9, which node 1 owns, are to be node 2's as well.
fn want(cluster: &Cluster) {
    let facts = cluster.now();
    let change = |slot| {
        let epoch = facts.slots()[&slot].epoch;
        let (owners, wanted) = (vec![NodeId(1)], vec![NodeId(1), NodeId(2)]);
        (slot, Change { epoch, owners, copied: 0, wanted })
    };
    cluster.apply(Command::Place { changes: slots("0-9").iter().map(change).collect() });
}

/// What fills node 2's slots.
fn filling(cluster: &Arc<Cluster>, disks: &Disks) -> AbortOnDropHandle<Result<(), FlushError>> {
    let members = peers::Member::new(Peers::over_tcp(), &identity(2));
    let (results, keeping) = (disks.keeping.results.clone(), disks.keeping.clone());
    let copying = Copying { results, members: members.clone() };
    let consensus = Arc::clone(cluster) as _;
    let filling = Filling { node: NodeId(2), consensus, copying, keeping, members };
    AbortOnDropHandle::new(tokio::spawn(filling.run()))
}

async fn owned_by(cluster: &Cluster, node: u64) -> String {
    let mut facts = cluster.facts();
    let owns = |facts: &Arc<Facts>| !facts.owner_of(NodeId(node)).is_empty();
    let facts = timeout(DEADLINE, facts.wait_for(owns)).await.unwrap().unwrap();
    facts.owner_of(NodeId(node)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_to_be_an_owner_copies_what_the_owners_have_and_says_so() {
    let cluster = Cluster::of(2);
    let [one, two] = [1, 2].map(|node| Disks::new(node, &cluster));
    one.fill(&[(7, 1), (7, 2), (8, 1), (200, 1)]);
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "0-255", FIRST, end);
    want(&cluster);
    let _filling = filling(&cluster, &two);
    // Nobody is reached where node 1 is said to be. Then it moves.
    let (address, _off) = one.serve().await;
    cluster.join(1, &address);
    assert_eq!(owned_by(&cluster, 2).await, "0-9");
    assert_eq!(two.results(), ("0-9".to_owned(), 3));
    let carried = two.keeping.carried.all().unwrap();
    assert_eq!((carried.len(), carried[0].slots), (1, slots("0-9")));
    let file = two.keeping.carried.send(&carried[0]).unwrap();
    assert!(file.map(|chunk| chunk.unwrap().len()).sum::<usize>() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_owner_has_is_not_waited_for() {
    let cluster = Cluster::of(2);
    let [one, two] = [1, 2].map(|node| Disks::new(node, &cluster));
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "0-255", FIRST, end);
    let (address, _off) = one.serve().await;
    cluster.join(1, &address);
    want(&cluster);
    let _filling = filling(&cluster, &two);
    assert_eq!(owned_by(&cluster, 2).await, "0-9");
    assert_eq!(two.results(), (String::new(), 0));
}
