use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::aggregation::distinct_logs::count_table::{Table, merge};
use crate::aggregation::distinct_logs::{MemoryLimit, OpenWindow};
use crate::checkpoint::carries::Carries;
use crate::checkpoint::facts::command::Change;
use crate::cluster::example::identity;
use crate::cluster::example::mesh::{Lender, Mesh};
use crate::cluster::lending::Lending;
use crate::event::entry::{Entry, Section};
use crate::event::time::{Clock, UnixNanos, Window};
use crate::flush::carried::CarriedWindows;
use crate::flush::example::node::everybody_waits;
use crate::flush::example::{Cluster, at, entry, slots, window};
use crate::flush::folding::Folding;
use crate::flush::results::{Results, ResultsError};
use crate::journal::copies::Copies;
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
            let (_, Section::DistinctLogs(section)) = section.unwrap() else { panic!() };
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

    /// What others may ask of it, as node 1.
    fn lend(&self, cluster: &Cluster, mesh: &Mesh) -> Lender {
        let clock = Clock::new(|| at(1));
        let store = Arc::clone(&self.store);
        let (journal, _) = Journal::new(store, &Replay::default(), clock, Box::new(|_| ()));
        let lending = Lending {
            journal,
            copies: Copies::open(Arc::clone(&self.store)).unwrap(),
            facts: cluster.facts(),
            results: self.keeping.results.clone(),
            keeping: self.keeping.clone(),
            folding: Folding::new().0,
            rejected: Arc::new(BTreeMap::new),
        };
        mesh.lend(1, Arc::new(lending))
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
fn filling(
    cluster: &Arc<Cluster>,
    mesh: &Arc<Mesh>,
    disks: &Disks,
) -> AbortOnDropHandle<Result<(), FlushError>> {
    let members = peers::Member::new(mesh.peers(), &identity(2));
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

#[tokio::test(start_paused = true)]
async fn whoever_is_to_be_an_owner_copies_what_the_owners_have_and_says_so() {
    let cluster = Cluster::of(2);
    let [one, two] = [1, 2].map(|node| Disks::new(node, &cluster));
    one.fill(&[(7, 1), (7, 2), (8, 1), (200, 1)]);
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "0-255", FIRST, end);
    want(&cluster);
    let mesh = Arc::<Mesh>::default();
    let _filling = filling(&cluster, &mesh, &two);
    everybody_waits().await;
    assert_eq!(cluster.now().filled_by(NodeId(2)).len(), 10, "nobody is reached");
    let _lender = one.lend(&cluster, &mesh);
    cluster.cut(11, &[]);
    assert_eq!(owned_by(&cluster, 2).await, "0-9");
    assert_eq!(two.results(), ("0-9".to_owned(), 3));
    let carried = two.keeping.carried.all().unwrap();
    assert_eq!((carried.len(), carried[0].slots), (1, slots("0-9")));
    let file = two.keeping.carried.send(&carried[0]).unwrap();
    assert!(file.map(|chunk| chunk.unwrap().len()).sum::<usize>() > 0);
}

#[tokio::test(start_paused = true)]
async fn what_no_owner_has_is_not_waited_for() {
    let cluster = Cluster::of(2);
    let [one, two] = [1, 2].map(|node| Disks::new(node, &cluster));
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "0-255", FIRST, end);
    let mesh = Arc::<Mesh>::default();
    let _lender = one.lend(&cluster, &mesh);
    want(&cluster);
    let _filling = filling(&cluster, &mesh, &two);
    assert_eq!(owned_by(&cluster, 2).await, "0-9");
    assert_eq!(two.results(), (String::new(), 0));
}
