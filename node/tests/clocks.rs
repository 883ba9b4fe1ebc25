//! Nodes whose clocks differ, in one process.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use sheaf_node::admin;
use sheaf_node::app::Node;
use sheaf_node::app::settings::{Command, Settings};
use sheaf_node::app::surroundings::Surroundings;
use sheaf_node::cluster::peers;
use sheaf_node::event::time::{Clock, SECOND, UnixNanos};
use sheaf_node::intake::Intake;
use sheaf_node::store::{Disk, Store};
use sheaf_proto::cluster::Cluster;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A request of one record that says nothing.
const ONE_RECORD: &[u8] = &[0x0a, 4, 0x12, 2, 0x12, 0];

/// A node, and how many nanoseconds its clock is ahead.
struct Machine {
    answers: Arc<dyn admin::Node>,
    intake: Intake,
    ahead: Arc<AtomicI64>,
    off: CancellationToken,
    running: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Machine {
    fn start(listener: TcpListener, initial: &str) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let settings = settings(folder.path(), &own, initial);
        let ahead = Arc::new(AtomicI64::new(0));
        let (by, real, disk) = (Arc::clone(&ahead), Clock::system(), Disk::default());
        let now = move || UnixNanos(real.now().0.saturating_add_signed(by.load(Ordering::SeqCst)));
        let surroundings = Surroundings {
            clock: Clock::new(now),
            store: Arc::new(move || Ok(Arc::new(Store::in_memory(&disk)?))),
            ..Surroundings::of_machine(&settings)
        };
        let node = Node::new(settings, surroundings);
        let (answers, intake) = (node.answers(), node.intake());
        let off = CancellationToken::new();
        tokio::spawn(peers::serve(peers::accept(listener), node.standing(), off.clone()));
        let runtime = Handle::current();
        let ended = off.clone();
        let run = move || drop(runtime.block_on(node.supervise(&ended)).unwrap());
        let running = std::thread::spawn(run);
        Machine { answers, intake, ahead, off, running, _folder: folder }
    }

    fn end(self) {
        self.off.cancel();
        self.running.join().unwrap();
    }

    fn is_ahead_by(&self, seconds: i64) {
        self.ahead.store(seconds * SECOND as i64, Ordering::SeqCst);
    }

    fn view(&self) -> Cluster {
        self.answers.cluster()
    }

    /// How many seconds the members' clocks are ahead of this one's, as it shows them.
    fn offsets(&self) -> Vec<Option<i64>> {
        let rounded = |micros: i64| (micros + micros.signum() * 500_000) / 1_000_000;
        let members = self.view().members.into_iter();
        members.map(|member| member.clock_offset_micros.map(rounded)).collect()
    }

    /// Whether it takes a request.
    async fn takes(&self) -> bool {
        let permit = self.intake.admission().admit(ONE_RECORD.len()).await;
        let Ok(permit) = permit else { return false };
        self.intake.export(Bytes::from_static(ONE_RECORD), permit).await.is_ok()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        self.answers.metrics(&mut text);
        text
    }
}

fn settings(folder: &Path, own: &str, initial: &str) -> Settings {
    let folder = folder.to_str().unwrap();
    let mut arguments = vec!["sheaf-node", "--data-dir", folder, "--clock-bound", "2s"];
    arguments.extend(["--peer-address", own, "--initial-members", initial]);
    let none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    match Settings::load(arguments.into_iter().map(Into::into), [], none).unwrap() {
        Command::Run(settings) => *settings,
        Command::Print(text) => panic!("{text}"),
    }
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_clock_is_off_is_seen_and_takes_nothing_until_it_is_right() {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses = listeners.iter().map(|known| known.local_addr().unwrap().to_string());
    let initial = addresses.collect::<Vec<_>>().join(",");
    let machines: Vec<_> =
        listeners.into_iter().map(|listener| Machine::start(listener, &initial)).collect();
    let leads = |machine: &&Machine| {
        let view = machine.view();
        view.leader.is_some() && view.leader == view.node
    };
    eventually("a leader", async || machines.iter().any(|machine| leads(&machine))).await;
    let leader = machines.iter().find(leads).unwrap();
    let off = machines.iter().find(|machine| !leads(machine)).unwrap();
    let number = off.view().node.unwrap() as usize;
    eventually("requests are taken", async || off.takes().await).await;

    let mut expected = vec![Some(0); 3];
    expected[leader.view().node.unwrap() as usize - 1] = None;
    eventually("clocks that agree", async || leader.offsets() == expected).await;
    off.is_ahead_by(4);
    expected[number - 1] = Some(4);
    eventually("a clock that is off", async || leader.offsets() == expected).await;
    assert_eq!(off.offsets(), [None; 3], "only the leader knows");
    let shown = format!("sheaf_clock_offset_seconds{{node=\"{number}\"}} ");
    assert!(leader.metrics().contains(&shown), "{}", leader.metrics());
    assert!(leader.metrics().contains("sheaf_clock_bound_seconds 2.0\n"), "{}", leader.metrics());

    eventually("a member without a lease", async || !off.takes().await).await;
    for other in machines.iter().filter(|machine| !std::ptr::eq(*machine, off)) {
        assert!(other.takes().await);
    }
    off.is_ahead_by(0);
    eventually("a member that takes requests again", async || off.takes().await).await;
    machines.into_iter().for_each(Machine::end);
}
