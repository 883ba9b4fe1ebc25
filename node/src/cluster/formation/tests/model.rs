//! Nodes with the same list of initial members, and everything that may happen to them.
//!
//! An answer shows the moment at which it was asked for; it takes effect when the round
//! ends, however much later.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// What may happen. Nodes are known by their places in the list.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// One asks another, or itself.
    Ask(usize, usize),
    /// One has asked everybody, and acts on it.
    EndRound(usize),
    /// One that has entered a cluster begins to tell it; until then it tells its last sight.
    Tell(usize),
    /// Its process dies.
    Stop(usize),
    /// It starts again.
    Start(usize),
    /// It starts again on an empty volume.
    Wipe(usize),
}

#[derive(Clone, Debug)]
struct Node {
    /// How often its volume was emptied.
    wiped: u8,
    /// What is on its volume of a cluster.
    cluster: Option<State>,
    process: Option<Process>,
}

/// What dies with the process.
#[derive(Clone, Debug, Default)]
struct Process {
    sees: BTreeSet<Birth>,
    /// What it has heard in this round.
    heard: BTreeMap<usize, Answer>,
    /// Whether it tells of the cluster on its volume.
    tells: bool,
}

#[derive(Clone, Debug)]
struct World(Vec<Node>);

impl World {
    fn of(nodes: usize) -> World {
        let node = Node { wiped: 0, cluster: None, process: Some(Process::default()) };
        World(vec![node; nodes])
    }

    fn birth(&self, place: usize) -> Birth {
        let uuid = Uuid::from_u128(u128::from(self.0[place].wiped) << 8 | place as u128);
        Birth { uuid, address: place.to_string(), ..born(place as u8) }
    }

    fn answer(&self, place: usize) -> Answer {
        let node = &self.0[place];
        let hello = node.process.as_ref().map(|process| {
            let told = node.cluster.clone().filter(|_| process.tells);
            let waiting = || State::Waiting { sees: process.sees.clone() };
            Hello { birth: self.birth(place), state: told.unwrap_or_else(waiting) }
        });
        Answer { address: place.to_string(), hello: hello.ok_or_else(|| "it is down".to_owned()) }
    }

    /// Lets something happen, if it can happen now; returns whether it can.
    fn happens(&mut self, event: Event) -> bool {
        match event {
            Event::Ask(asking, asked) => {
                let answer = self.answer(asked);
                let Node { cluster: None, process: Some(process), .. } = &mut self.0[asking] else {
                    return false;
                };
                process.heard.insert(asked, answer).is_none()
            }
            Event::EndRound(place) => {
                let nodes = self.0.len();
                let process = self.0[place].process.as_mut();
                let Some(process) = process.filter(|process| process.heard.len() == nodes) else {
                    return false;
                };
                let seen: Vec<_> = std::mem::take(&mut process.heard).into_values().collect();
                self.act(place, &seen);
                true
            }
            Event::Tell(place) => match &mut self.0[place] {
                Node { cluster: Some(_), process: Some(process), .. } => {
                    !std::mem::replace(&mut process.tells, true)
                }
                _ => false,
            },
            Event::Stop(place) => self.0[place].process.take().is_some(),
            Event::Start(place) => {
                let Node { cluster, process, .. } = &mut self.0[place];
                let starts = process.is_none();
                // What it reads from its volume it tells at once.
                process.get_or_insert_with(|| Process {
                    tells: cluster.is_some(),
                    ..Process::default()
                });
                starts
            }
            Event::Wipe(place) => {
                let wiped = self.0[place].wiped + 1;
                self.0[place] = Node { wiped, cluster: None, process: Some(Process::default()) };
                true
            }
        }
    }

    fn act(&mut self, place: usize, seen: &[Answer]) {
        let own = self.birth(place);
        let entered = match decide(&own, self.0.len(), seen) {
            Decision::Form(identity) | Decision::Adopt(identity) => {
                let Identity { cluster, node, founders, .. } = identity;
                Some(State::Member { cluster, node, founders })
            }
            Decision::Join { cluster, .. } => self.take_in(cluster),
            Decision::Wait(_) => None,
        };
        let node = &mut self.0[place];
        match entered {
            Some(entered) => node.cluster = Some(entered),
            None => node.process.as_mut().expect("a running process").sees = sight(seen),
        }
    }

    /// What a cluster tells a node that joins, if most of its founders are there.
    fn take_in(&self, cluster: Uuid) -> Option<State> {
        let belongs = |node: &&Node| node.process.is_some() && node.cluster() == Some(cluster);
        let founders = self.0.iter().find(belongs)?.founders()?;
        let present = (0..self.0.len())
            .filter(|&place| belongs(&&self.0[place]) && founders.contains(&self.birth(place)));
        let decides = 2 * present.count() > founders.len();
        decides.then(|| State::Member { cluster, node: NodeId(100), founders: founders.clone() })
    }

    /// Lets everybody reach everybody, round by round, until nothing changes any more.
    fn settle(&mut self) {
        let places = 0..self.0.len();
        for place in places.clone() {
            self.happens(Event::Start(place));
            self.happens(Event::Tell(place));
        }
        // They end an old round, see all, see that all see, form or adopt, join.
        for _round in 0..5 {
            for place in places.clone() {
                for asked in places.clone() {
                    self.happens(Event::Ask(place, asked));
                }
                self.happens(Event::EndRound(place));
                self.happens(Event::Tell(place));
            }
        }
    }

    /// Whether a cluster has lost so many founders that it can take in nobody.
    fn is_stuck(&self) -> bool {
        let births: BTreeSet<_> = (0..self.0.len()).map(|place| self.birth(place)).collect();
        let mut founders = self.0.iter().filter_map(Node::founders);
        founders.any(|founders| 2 * founders.intersection(&births).count() <= founders.len())
    }

    fn check_one_cluster(&self) {
        let clusters: BTreeSet<_> = self.0.iter().filter_map(Node::cluster).collect();
        assert!(clusters.len() <= 1, "two clusters: {self:#?}");
    }

    fn check_settled(mut self) {
        self.settle();
        self.check_one_cluster();
        let all = self.0.iter().all(|node| node.cluster.is_some());
        assert!(all || self.is_stuck(), "not everybody is in: {self:#?}");
    }
}

impl Node {
    fn cluster(&self) -> Option<Uuid> {
        match self.cluster {
            Some(State::Member { cluster, .. }) => Some(cluster),
            _ => None,
        }
    }

    fn founders(&self) -> Option<&BTreeSet<Birth>> {
        match &self.cluster {
            Some(State::Member { founders, .. }) => Some(founders),
            _ => None,
        }
    }
}

/// Everything is tried that can happen while volumes are lost twice and processes die
/// twice.
#[test]
fn two_nodes_never_form_two_clusters_and_end_up_in_one() {
    use Event::{Ask, EndRound, Start, Stop, Tell, Wipe};
    let events = |place| {
        let goes_on = [Ask(place, 0), Ask(place, 1), EndRound(place), Tell(place)];
        goes_on.into_iter().chain([Start(place), Stop(place), Wipe(place)])
    };
    let mut known = HashSet::new();
    let mut open = VecDeque::from([(World::of(2), 2, 2)]);
    while let Some((world, wipes, stops)) = open.pop_front() {
        for event in events(0).chain(events(1)) {
            let (wipes, stops) = match event {
                Wipe(_) if wipes == 0 => continue,
                Stop(_) if stops == 0 => continue,
                Wipe(_) => (wipes - 1, stops),
                Stop(_) => (wipes, stops - 1),
                _ => (wipes, stops),
            };
            let mut next = world.clone();
            if next.happens(event) && known.insert(format!("{next:?} {wipes} {stops}")) {
                next.check_one_cluster();
                open.push_back((next, wipes, stops));
            }
        }
        world.check_settled();
    }
    assert!(known.len() > 1000, "{} states are no trial", known.len());
}

fn event(nodes: usize) -> impl Strategy<Value = Event> {
    let place = move || 0..nodes;
    prop_oneof![
        60 => (place(), place()).prop_map(|(asking, asked)| Event::Ask(asking, asked)),
        20 => place().prop_map(Event::EndRound),
        6 => place().prop_map(Event::Tell),
        6 => place().prop_map(Event::Start),
        2 => place().prop_map(Event::Stop),
        2 => place().prop_map(Event::Wipe),
    ]
}

/// A number of nodes, and what happens to them.
fn trial() -> impl Strategy<Value = (usize, Vec<Event>)> {
    (3..=5_usize).prop_flat_map(|nodes| (Just(nodes), prop::collection::vec(event(nodes), 0..300)))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn more_nodes_never_form_two_clusters_and_end_up_in_one((nodes, events) in trial()) {
        let mut world = World::of(nodes);
        for event in events {
            world.happens(event);
            world.check_one_cluster();
        }
        world.check_settled();
    }
}
