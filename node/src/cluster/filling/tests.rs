use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::aggregation::distinct_logs::count_table::{Table, merge};
use crate::aggregation::distinct_logs::{MemoryLimit, OpenWindow};
use crate::aggregation::log_files::session::{Held, Order, Session};
use crate::checkpoint::carries::Carries;
use crate::checkpoint::facts::command::Change;
use crate::cluster::example::identity;
use crate::cluster::example::mesh::{Lender, Mesh};
use crate::cluster::fetching::Fetching;
use crate::cluster::lending::Lending;
use crate::cluster::pace::Pace;
use crate::cluster::peers::Kept;
use crate::event::chunk::StreamId;
use crate::event::entry::{Entry, Section};
use crate::event::time::{Clock, UnixNanos, Window};
use crate::flush::carried::CarriedWindows;
use crate::flush::example::node::everybody_waits;
use crate::flush::example::{Cluster, at, entry, slots, window};
use crate::flush::files::{self, FileKey, Files};
use crate::flush::folding::Folding;
use crate::flush::results::{Results, ResultsError};
use crate::flush::sharing::KeptFiles;
use crate::journal::copies::Copies;
use crate::journal::{Journal, Position, Replay};
use crate::store::{Disk, Store};

const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10_000_000_000) };
const MEMORY: MemoryLimit = MemoryLimit(1 << 20);
/// Nothing here takes this long.
const DEADLINE: Duration = Duration::from_secs(60);

/// A file of a slot that is filled.
const KEY: FileKey = FileKey { aggregation: 1, hash: (SLOT as u128) << 120, session: 7 };
const SLOT: Slot = 7;

fn id() -> StreamId {
    "a".to_owned().try_into().unwrap()
}

/// What a node has on its disk.
struct Disks {
    keeping: Keeping,
    store: Arc<Store>,
    _folders: [tempfile::TempDir; 2],
}

impl Disks {
    fn new(node: u64, cluster: &Cluster, mesh: &Arc<Mesh>) -> Disks {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [scratch, files] = &folders;
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let carries = Carries::new(Arc::clone(&store));
        let carried = CarriedWindows { carries, scratch: scratch.path().to_owned() };
        let results = Results::new(Arc::clone(&store));
        let members = peers::Member::new(mesh.peers(), &identity(node as u8));
        let files = Files::new(files.path().to_owned(), Arc::clone(&store));
        let fetching = Fetching { files, members, pace: Pace::default() };
        let (node, facts) = (NodeId(node), cluster.facts());
        let keeping = Keeping { node, results, carried, fetching, facts };
        Disks { keeping, store, _folders: folders }
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

    /// Keeps the next chunk of a file, as a slot's checkpoint of this number has it.
    fn rebuild(&self, number: u64, payload: &'static [u8]) {
        let files = &self.keeping.fetching.files;
        let now = files.kept(&KEY).unwrap().map(|kept| kept.now).unwrap_or_default();
        let mut file = files.open(&KEY, &id(), now.reached, now.reached).unwrap();
        let mut session = Session::resume(now.reached, BTreeMap::new());
        let position = Position { segment: 1, index: number };
        let order = Order { stamp: at(number), position };
        let held = Held { fingerprint: number.into(), payload: Bytes::from_static(payload) };
        session.take(now.reached.next, order, held, &mut file).unwrap();
        let found = session.close(|_| true, &mut file).unwrap();
        file.add_to_index(now.reached.next, &found.appended).unwrap();
        let change = files::Change { key: KEY, id: id(), found };
        files.keep(&[change], &[(SLOT, number)].into(), UnixNanos(0)).unwrap();
    }

    /// What a file has, and the checkpoint that says so.
    fn rebuilt(&self) -> Option<(String, u64)> {
        let files = &self.keeping.fetching.files;
        let kept = files.kept(&KEY).unwrap()?;
        let content = std::fs::read_to_string(files.path(1, &id(), 7)).unwrap();
        Some((content, kept.now.checkpoint))
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
fn filling(cluster: &Arc<Cluster>, disks: &Disks) -> AbortOnDropHandle<Result<(), FlushError>> {
    let (results, keeping) = (disks.keeping.results.clone(), disks.keeping.clone());
    let Fetching { files, members, pace } = keeping.fetching.clone();
    let copying = Copying { results, members: members.clone(), pace };
    let forgetting = Forgetting::new(NodeId(2), files, cluster.facts());
    let consensus = Arc::clone(cluster) as _;
    let filling = Filling { node: NodeId(2), consensus, copying, keeping, members, forgetting };
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
    let mesh = Arc::<Mesh>::default();
    let [one, two] = [1, 2].map(|node| Disks::new(node, &cluster, &mesh));
    one.fill(&[(7, 1), (7, 2), (8, 1), (200, 1)]);
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "0-255", FIRST, end);
    want(&cluster);
    let _filling = filling(&cluster, &two);
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
    let mesh = Arc::<Mesh>::default();
    let [one, two] = [1, 2].map(|node| Disks::new(node, &cluster, &mesh));
    let end = cluster.cut(10, &[]);
    cluster.flush(1, "0-255", FIRST, end);
    let _lender = one.lend(&cluster, &mesh);
    want(&cluster);
    let _filling = filling(&cluster, &two);
    assert_eq!(owned_by(&cluster, 2).await, "0-9");
    assert_eq!(two.results(), (String::new(), 0));
}

/// Nodes 1 and 2, and a file that node 1 has as of a checkpoint.
fn with_a_file() -> (Arc<Cluster>, Arc<Mesh>, [Disks; 2]) {
    let (cluster, mesh) = (Cluster::of(2), Arc::<Mesh>::default());
    cluster.register_files();
    cluster.cut(10, &[]);
    let disks = [1, 2].map(|node| Disks::new(node, &cluster, &mesh));
    disks[0].rebuild(1, b"one ");
    cluster.checkpoint_files(1, "0-255");
    (cluster, mesh, disks)
}

#[tokio::test(start_paused = true)]
async fn files_are_copied_and_once_more_if_a_checkpoint_was_completed_meanwhile() {
    let (cluster, mesh, [one, two]) = with_a_file();
    let _lender = one.lend(&cluster, &mesh);
    want(&cluster);
    // Just before the node says that it has filled, the owners have more.
    one.rebuild(2, b"two");
    cluster.cut(11, &[]);
    let completed = cluster.claim_files(1, "7");
    cluster.before(|command| matches!(command, Command::Filled { .. }), completed);
    let _filling = filling(&cluster, &two);
    let owns_all = |facts: &Arc<Facts>| facts.filled_by(NodeId(2)).is_empty();
    timeout(DEADLINE, cluster.facts().wait_for(owns_all)).await.unwrap().unwrap();
    assert_eq!(two.rebuilt(), Some(("one two".to_owned(), 2)));
    let said = cluster.proposed();
    let said = said.iter().filter_map(|command| match command {
        Command::Filled { slots, files, .. } => Some((slots.len(), files[&1][&SLOT])),
        _ => None,
    });
    assert_eq!(said.collect::<Vec<_>>(), [(10, 1), (1, 2)]);
}

/// Slots 0 to 9 are both nodes', and node 1 leads them.
fn own(cluster: &Cluster) {
    let facts = cluster.now();
    let change = |slot| {
        let (epoch, copied) = (facts.slots()[&slot].epoch, facts.latest_cut().number);
        let owners = vec![NodeId(1), NodeId(2)];
        (slot, Change { epoch, owners, copied, wanted: Vec::new() })
    };
    cluster.apply(Command::Place { changes: slots("0-9").iter().map(change).collect() });
}

/// What node 1 tells of its file's checkpoint.
fn told(checkpoint: u64) -> Kept {
    let checkpoints = [(SLOT, checkpoint)].into();
    Kept::Files(KeptFiles { aggregation: 1, checkpoints, files: vec![KEY] })
}

#[tokio::test(start_paused = true)]
async fn an_owner_reads_what_it_lacks_of_files_that_the_primary_tells_of() {
    let (cluster, mesh, [one, two]) = with_a_file();
    let _lender = one.lend(&cluster, &mesh);
    own(&cluster);
    let keep = async |primary, kept| {
        two.keeping.keep(NodeId(primary), kept, stream::empty().boxed()).await
    };
    one.rebuild(2, b"two");
    // It has missed the first one.
    keep(1, told(2)).await.unwrap();
    assert_eq!(two.rebuilt(), Some(("one two".to_owned(), 2)));
    let kept = two.keeping.fetching.files.kept(&KEY).unwrap().unwrap();
    assert_eq!(kept.as_of(1).reached.length, 4, "nobody has completed the second one");
    keep(1, told(2)).await.unwrap();
    one.rebuild(3, b"!");
    let refused = keep(2, told(3)).await.unwrap_err();
    assert!(refused.to_string().ends_with("keeps slots 7 for node 2"), "{refused}");
    let Kept::Files(files) = told(3) else { panic!() };
    let other = FileKey { session: 8, ..KEY };
    keep(1, Kept::Files(KeptFiles { files: vec![KEY, other], ..files })).await.unwrap_err();
    assert_eq!(two.rebuilt(), Some(("one two".to_owned(), 2)));
    let folded = two.keeping.fetching.files.fold(slots("7"));
    keep(1, told(3)).await.unwrap_err();
    drop(folded);
    keep(1, told(3)).await.unwrap();
    assert_eq!(two.rebuilt(), Some(("one two!".to_owned(), 3)));
}

#[tokio::test(start_paused = true)]
async fn only_an_owner_that_knows_of_the_last_checkpoint_gives_out_all_files_of_a_slot() {
    let (cluster, mesh, [one, two]) = with_a_file();
    let _lender = one.lend(&cluster, &mesh);
    let files = &two.keeping.fetching;
    let ask = async |checkpoint| {
        let asked = files.files.ask_all(1, [(SLOT, checkpoint)].into()).unwrap();
        let from = (NodeId(1), "node-1:9465");
        files.fetch(from, asked, |_| true, Haste::AtOnce).await
    };
    ask(2).await.unwrap_err();
    assert_eq!(two.rebuilt(), None);
    ask(0).await.unwrap();
    assert_eq!(two.rebuilt(), Some(("one ".to_owned(), 1)));
    cluster.place("7", 2);
    ask(1).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn files_outlive_the_ownership_of_their_slot_for_a_while() {
    let (cluster, mesh, [one, two]) = with_a_file();
    let _lender = one.lend(&cluster, &mesh);
    own(&cluster);
    two.keeping.keep(NodeId(1), told(1), stream::empty().boxed()).await.unwrap();
    let files = two.keeping.fetching.files.clone();
    let mut forgetting = Forgetting::new(NodeId(2), files, cluster.facts());
    let mut after = async |seconds, is_there: bool| {
        sleep(Duration::from_secs(seconds)).await;
        forgetting.forget_some().unwrap();
        assert_eq!(two.rebuilt().is_some(), is_there);
    };
    after(9999, true).await;
    cluster.place("0-9", 1);
    after(0, true).await;
    want(&cluster);
    after(9999, true).await;
    cluster.place("0-9", 1);
    after(0, true).await;
    after(599, true).await;
    after(1, false).await;
}
