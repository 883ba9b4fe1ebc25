//! A client that sends each request until it is acknowledged, and some of them once more,
//! to any of the nodes: each counts once.

use std::collections::{BTreeMap, VecDeque};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sheaf_proto::statistics::{Ledger, WindowCounts};

use super::nodes::{Nodes, settled, view};
use crate::http::{Connection, Form, Record};
use crate::process::{Process, eventually};

const SESSION: &str = "fedcba9876543210fedcba9876543210";
/// Records of a request, all of them different.
const RECORDS: u64 = 5;
/// Requests are sent once more when so many others were sent since: in a later window.
const LATER: usize = 300;
/// How long the client rests after each request.
const PAUSE: Duration = Duration::from_millis(5);

/// The nodes, and what was sent to them.
struct Client {
    nodes: Vec<Option<Process>>,
    numbers: u64,
    acknowledged: VecDeque<u64>,
    again: u64,
}

impl Client {
    /// Sends for so long.
    fn send_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            let number = self.numbers;
            self.numbers += 1;
            self.send(number, number as usize);
            self.acknowledged.push_back(number);
            if self.acknowledged.len() > LATER
                && let Some(earlier) = self.acknowledged.pop_front()
            {
                self.again += 1;
                self.send(earlier, earlier as usize + 1);
            }
            sleep(PAUSE);
        }
    }

    /// Sends a request to one node after the other until one takes it.
    fn send(&mut self, number: u64, first: usize) {
        let records: Vec<_> = (0..RECORDS).map(|body| record(number, body)).collect();
        let id = format!("{SESSION}/{}", number + 1);
        let mut turn = first;
        eventually("an acknowledgement", || {
            turn += 1;
            let count = self.nodes.len();
            let address = self.nodes[turn % count].as_mut()?.otlp_http()?;
            let mut connection = Connection::open(address).ok()?;
            let answer = connection.export_named(&id, Form::Protobuf, &records).ok()?;
            assert!([200, 503].contains(&answer.status), "{answer:?}");
            (answer.status == 200).then_some(())
        });
    }

    /// The ledger when everything is flushed.
    fn ledger(&mut self) -> Ledger {
        let node = self.nodes[0].as_mut().unwrap();
        eventually("a ledger with nothing pending", || {
            node.must_be_alive();
            let answer = Connection::open(node.admin()?).and_then(|mut c| c.get("/v1/ledger"));
            let ledger: Ledger = serde_json::from_str(&answer.ok()?.body).ok()?;
            let [account] = ledger.aggregations.as_slice() else { return None };
            let counted = account.accepted + account.deduplicated;
            let is_over = ledger.balanced && account.pending == 0 && counted == ledger.accepted;
            is_over.then_some(ledger)
        })
    }
}

fn record(number: u64, body: u64) -> Record {
    let attribute = Some(("request", number.to_string()));
    Record { body: format!("body {body}"), attribute }
}

/// The windows that were printed, each once.
fn windows(printed: &[String]) -> Vec<WindowCounts> {
    let lines = printed.iter().flat_map(|stdout| stdout.split_inclusive('\n'));
    let whole = lines.filter_map(|line| line.strip_suffix('\n'));
    let windows = whole.map(|line| serde_json::from_str(line).unwrap());
    let by_start = windows.map(|window: WindowCounts| (window.window.start, window));
    by_start.collect::<BTreeMap<_, _>>().into_values().collect()
}

#[test]
fn requests_that_are_sent_again_to_other_nodes_count_once_whoever_dies() {
    let nodes = Nodes::new(3);
    let mut running: Vec<_> = nodes.start_all().into_iter().map(Some).collect();
    running.iter_mut().flatten().for_each(|node| drop(settled(node, 3)));
    let leader = view(running[0].as_mut().unwrap()).and_then(|view| view.leader).unwrap();
    let leads =
        |node: &mut Option<Process>| view(node.as_mut().unwrap()).unwrap().node == Some(leader);
    let killed = running.iter_mut().position(leads).unwrap();
    let mut client = Client { nodes: running, numbers: 0, acknowledged: VecDeque::new(), again: 0 };
    client.send_for(Duration::from_secs(4));
    let mut printed = vec![client.nodes[killed].take().unwrap().kill().stdout];
    client.send_for(Duration::from_secs(8));
    client.nodes[killed] = Some(nodes.start(killed, 3));
    client.send_for(Duration::from_secs(4));

    let ledger = client.ledger();
    let [account] = ledger.aggregations.as_slice() else { panic!("{ledger:?}") };
    assert_eq!((account.accepted, account.duplicate), (client.numbers * RECORDS, 0), "{ledger:?}");
    assert!(account.deduplicated >= client.again * RECORDS && client.again > 0, "{ledger:?}");
    let accepted = account.accepted;
    eventually("the lines of all records", || {
        let now = client.nodes.iter_mut().flatten().map(|node| node.printed());
        let now: Vec<_> = printed.iter().cloned().chain(now).collect();
        let records: u64 = windows(&now).iter().map(|window| window.records).sum();
        (records == accepted).then_some(())
    });
    printed.extend(client.nodes.into_iter().flatten().map(|node| node.terminate().stdout));
    let mut counted = BTreeMap::new();
    for count in windows(&printed).into_iter().flat_map(|window| window.counts) {
        assert_eq!(count.count, RECORDS, "{count:?}");
        assert_eq!(counted.insert(count.value.to_string(), ()), None, "{count:?} counts twice");
    }
    assert_eq!(counted.len() as u64, client.numbers);
}
