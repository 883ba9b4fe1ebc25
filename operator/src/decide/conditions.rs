//! What is told of an aggregator: four conditions, each with a specific reason.

use sheaf_proto::cluster::{self, MemberState};

use super::departed::Verdict;
use super::retained::Mismatch;
use super::scaling::Step;
use super::settled;
use crate::names::GIVE_UP_ANNOTATION;

/// The most characters of a condition's message.
const MESSAGE_CHARS_MAX: usize = 1_024;

/// One condition, but for its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its type.
    pub kind: Kind,
    /// Whether it holds.
    pub holds: bool,
    /// Why, as one word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// The types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All nodes that are wanted take logs, and every slot is counted.
    Ready,
    /// Something is being changed.
    Progressing,
    /// Something is wrong, and may need a person.
    Degraded,
    /// The wanted number of nodes cannot be reached.
    ScalingBlocked,
}

impl Kind {
    /// Its name in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Ready => "Ready",
            Kind::Progressing => "Progressing",
            Kind::Degraded => "Degraded",
            Kind::ScalingBlocked => "ScalingBlocked",
        }
    }
}

/// Why nothing was done at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The spec asks for what cannot be; the word for it, and why.
    Invalid(&'static str, String),
    /// An object of a name that is needed belongs to somebody else.
    NameConflict(String),
    /// The volumes that are there are another cluster's.
    Retained(Mismatch),
    /// The API server or a node did not do what it was asked.
    Failed(String),
}

impl Halt {
    fn reason(&self) -> &'static str {
        match self {
            Halt::Invalid(reason, _) => reason,
            Halt::NameConflict(_) => "NameConflict",
            Halt::Retained(_) => "RetainedVolumesMismatch",
            Halt::Failed(_) => "ReconcileFailed",
        }
    }

    fn message(&self) -> String {
        match self {
            Halt::Invalid(_, why) | Halt::NameConflict(why) | Halt::Failed(why) => why.clone(),
            Halt::Retained(mismatch) => mismatch.to_string(),
        }
    }
}

/// A round that was gone through: what was seen, what was decided, and what came of it.
#[derive(Clone, Debug)]
pub struct Round<'a> {
    /// Whether the operator leaves everything as it is.
    pub paused: bool,
    /// How many pods are wanted.
    pub wanted: u32,
    /// How many the StatefulSet has.
    pub replicas: u32,
    /// How many of them take logs.
    pub ready: u32,
    /// How far the cluster is.
    pub cluster: Cluster<'a>,
    /// The step towards the wanted number.
    pub step: Step,
    /// Why the cluster has not taken that step.
    pub untaken_step: Option<Untaken>,
    /// Members that cannot come back, and what becomes of them.
    pub departed: &'a [Verdict],
    /// Why the cluster has not forgotten one.
    pub unforgotten: Option<Untaken>,
    /// Why the API server refuses to have a volume grow.
    pub refused_growth: Option<String>,
    /// A pod that gets another volume, and so another member.
    pub displaced: Option<&'a str>,
    /// What a rolling update waits for, or the pod that it replaces.
    pub rolling: Option<Rolling<'a>>,
    /// Whether volumes grow.
    pub grows: bool,
}

/// Why the cluster did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untaken {
    /// It does not allow it, in its words.
    Refused(String),
    /// Nobody has answered, so nobody knows. It is asked again.
    Unanswered(String),
}

/// How far the nodes are with their cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster<'a> {
    /// There is none yet; one of them waits for this.
    Forming(Option<&'a str>),
    /// Nobody who leads it answers.
    Leaderless,
    /// A member takes over its share of the slots.
    Joining(u64),
    /// Nobody counts so many slots.
    Unled(u64),
    /// Every slot is counted.
    Whole,
}

/// How far a rolling update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rolling<'a> {
    /// This pod is being replaced by its new version.
    Replaces(&'a str),
    /// It waits for this.
    Waits(&'a str),
}

/// How far a cluster is that has this many slots, by its leader.
pub fn cluster(told: &cluster::Cluster, slots: u64) -> Cluster<'static> {
    let joining = told.members.iter().find(|member| member.state == MemberState::Joining);
    let filling = told.members.iter().find(|member| member.filling > 0);
    match (settled::unled(told, slots), joining.or(filling)) {
        (_, Some(member)) => Cluster::Joining(member.id),
        (0, None) => Cluster::Whole,
        (unled, None) => Cluster::Unled(unled),
    }
}

/// The conditions when nothing was done.
pub fn halted(halt: &Halt) -> [Told; 4] {
    let told = |kind, holds| Told {
        kind,
        holds,
        reason: halt.reason(),
        message: shortened(&halt.message()),
    };
    [
        told(Kind::Ready, false),
        told(Kind::Progressing, false),
        told(Kind::Degraded, true),
        told(Kind::ScalingBlocked, true),
    ]
}

/// The conditions after a round.
pub fn conditions(round: &Round<'_>) -> [Told; 4] {
    [ready(round), progressing(round), degraded(round), scaling_blocked(round)]
}

fn told(kind: Kind, holds: bool, reason: &'static str, message: impl Into<String>) -> Told {
    Told { kind, holds, reason, message: shortened(&message.into()) }
}

fn shortened(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}

fn ready(round: &Round<'_>) -> Told {
    let not = |reason, message: String| told(Kind::Ready, false, reason, message);
    let Round { replicas, ready, wanted, .. } = *round;
    match round.cluster {
        Cluster::Forming(waits) => {
            let waits = waits.map(|reason| format!(": {reason}")).unwrap_or_default();
            not("Forming", format!("the nodes have not formed a cluster yet{waits}"))
        }
        _ if ready < replicas => {
            not("NodesNotReady", format!("{ready} of {replicas} nodes take logs"))
        }
        Cluster::Leaderless => not("NoLeader", "no leader of the cluster answers".into()),
        Cluster::Joining(member) => {
            not("SlotsMoving", format!("node {member} takes over its share of the slots"))
        }
        Cluster::Unled(slots) => not("SlotsMoving", format!("{slots} slots are counted by nobody")),
        Cluster::Whole if replicas != wanted => {
            not("Scaling", format!("there are {replicas} nodes, and {wanted} are wanted"))
        }
        Cluster::Whole => {
            told(Kind::Ready, true, "AllNodesReady", format!("all {ready} nodes take logs"))
        }
    }
}

fn progressing(round: &Round<'_>) -> Told {
    let now = |reason, message: String| told(Kind::Progressing, true, reason, message);
    if round.paused {
        let message = "paused: the operator changes nothing";
        return told(Kind::Progressing, false, "Paused", message);
    }
    let Round { replicas, wanted, .. } = *round;
    match (round.step, round.rolling) {
        (Step::Drain { member } | Step::Await { member }, _) => {
            now("ScalingDown", format!("node {member} hands over what it has"))
        }
        _ if replicas > wanted => now("ScalingDown", format!("from {replicas} nodes to {wanted}")),
        _ if replicas < wanted => now("ScalingUp", format!("from {replicas} nodes to {wanted}")),
        _ if round.displaced.is_some() => {
            let pod = round.displaced.unwrap_or_default();
            now("ReplacingNode", format!("{pod} begins anew, with another volume"))
        }
        _ if round.grows => now("GrowingVolumes", "the volumes are made larger".into()),
        (_, Some(Rolling::Replaces(pod))) => {
            now("RollingUpdate", format!("{pod} is replaced by its new version"))
        }
        (_, Some(Rolling::Waits(wait))) => {
            now("RollingUpdate", format!("outdated pods wait: {wait}"))
        }
        _ => match round.cluster {
            Cluster::Forming(_) => now("Forming", "the nodes form a cluster".into()),
            Cluster::Joining(member) => now("Joining", format!("node {member} joins")),
            _ if round.ready < replicas && round.departed.is_empty() => {
                now("NodesStarting", format!("{} of {replicas} nodes take logs", round.ready))
            }
            Cluster::Leaderless | Cluster::Unled(_) | Cluster::Whole => {
                told(Kind::Progressing, false, "UpToDate", "everything is as it was asked for")
            }
        },
    }
}

fn degraded(round: &Round<'_>) -> Told {
    let is = |reason, message: String| told(Kind::Degraded, true, reason, message);
    let asked = round.departed.iter().filter_map(|verdict| match verdict {
        Verdict::Ask(seat) => Some(seat.member.to_string()),
        Verdict::Forget(_) | Verdict::Await(_) => None,
    });
    let asked: Vec<String> = asked.collect();
    if !asked.is_empty() {
        let ids = asked.join(",");
        let message = format!(
            "the machine or the volume of node {ids} is gone, and only there is some of the data: \
             bring it back, or give it up with the annotation {}={ids}",
            GIVE_UP_ANNOTATION
        );
        return is("DataOnLostNode", message);
    }
    match (round.departed.first(), &round.unforgotten) {
        (Some(_), Some(Untaken::Refused(reason))) => {
            return is("NodeLost", format!("a node is lost and cannot be replaced: {reason}"));
        }
        (Some(_), Some(Untaken::Unanswered(reason))) => {
            let message = format!("a node is lost; the others are asked to forget it: {reason}");
            return is("NodeLost", message);
        }
        (Some(Verdict::Forget(seat) | Verdict::Await(seat) | Verdict::Ask(seat)), None) => {
            return is("NodeLost", format!("node {} is lost, and is replaced", seat.member));
        }
        (None, _) => {}
    }
    if let Some(reason) = &round.refused_growth {
        return is("VolumesCannotGrow", reason.clone());
    }
    match round.cluster {
        Cluster::Leaderless => is("NoLeader", "no leader of the cluster answers".into()),
        Cluster::Unled(slots) => is("SlotsUnled", format!("{slots} slots are counted by nobody")),
        Cluster::Forming(_) | Cluster::Joining(_) | Cluster::Whole => {
            told(Kind::Degraded, false, "Healthy", "nothing is wrong")
        }
    }
}

fn scaling_blocked(round: &Round<'_>) -> Told {
    let is = |reason, message: String| told(Kind::ScalingBlocked, true, reason, message);
    let Round { replicas, wanted, .. } = *round;
    match (&round.untaken_step, round.step) {
        _ if round.paused && replicas != wanted => {
            is("Paused", format!("paused with {replicas} nodes; {wanted} are wanted"))
        }
        (Some(Untaken::Refused(reason)), _) => is("DrainRefused", reason.clone()),
        (Some(Untaken::Unanswered(reason)), _) => {
            is("DrainUnanswered", format!("it is asked again: {reason}"))
        }
        (None, Step::Blind) => {
            let message = "no leader answers, who knows what nodes hold and takes new ones in";
            is("NoLeader", message.into())
        }
        (None, Step::Set(_) | Step::Drain { .. } | Step::Await { .. }) => {
            told(Kind::ScalingBlocked, false, "NotBlocked", "nothing is in the way")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::tests::{self as fleet, seat};
    use super::*;

    /// Three nodes, and all is well.
    fn calm() -> Round<'static> {
        Round {
            paused: false,
            wanted: 3,
            replicas: 3,
            ready: 3,
            cluster: Cluster::Whole,
            step: Step::Set(3),
            untaken_step: None,
            departed: &[],
            unforgotten: None,
            refused_growth: None,
            displaced: None,
            rolling: None,
            grows: false,
        }
    }

    /// The conditions that hold, with their reasons.
    fn holding(told: &[Told; 4]) -> Vec<(&'static str, &'static str)> {
        told.iter()
            .filter(|told| told.holds)
            .map(|told| (told.kind.as_str(), told.reason))
            .collect()
    }

    fn after(round: Round<'_>) -> Vec<(&'static str, &'static str)> {
        holding(&conditions(&round))
    }

    #[test]
    fn an_aggregator_is_ready_when_all_is_well() {
        assert_eq!(after(calm()), [("Ready", "AllNodesReady")]);
    }

    #[test]
    fn it_is_not_ready_while_nodes_form_a_cluster() {
        let forming = Round { cluster: Cluster::Forming(Some("b is away")), ready: 0, ..calm() };
        let told = conditions(&forming);
        assert_eq!(holding(&told), [("Progressing", "Forming")]);
        assert_eq!(told[0].reason, "Forming");
        assert!(told[0].message.ends_with("yet: b is away"), "{}", told[0].message);
    }

    #[test]
    fn it_is_not_ready_while_nodes_or_slots_are_missing() {
        let told = conditions(&Round { ready: 2, ..calm() });
        assert_eq!(holding(&told), [("Progressing", "NodesStarting")]);
        assert_eq!(told[0].reason, "NodesNotReady");
        assert_eq!(told[0].message, "2 of 3 nodes take logs");
        let joining = Round { cluster: Cluster::Joining(4), ..calm() };
        assert_eq!(after(joining), [("Progressing", "Joining")]);
        let unled = Round { cluster: Cluster::Unled(7), ..calm() };
        assert_eq!(after(unled), [("Degraded", "SlotsUnled")]);
        let headless = Round { cluster: Cluster::Leaderless, ..calm() };
        assert_eq!(after(headless), [("Degraded", "NoLeader")]);
    }

    #[test]
    fn a_member_that_joins_or_copies_moves_slots() {
        let mut told = fleet::cluster();
        assert_eq!(cluster(&told, 256), Cluster::Whole);
        told.members[2].filling = 3;
        assert_eq!(cluster(&told, 256), Cluster::Joining(3));
        told.members[1].state = MemberState::Joining;
        told.members[1].slots = 0;
        assert_eq!(cluster(&told, 256), Cluster::Joining(2));
        (told.members[1].state, told.members[2].filling) = (MemberState::Active, 0);
        assert_eq!(cluster(&told, 256), Cluster::Unled(85));
    }

    #[test]
    fn scaling_is_told_until_it_is_done() {
        let up = Round { wanted: 5, step: Step::Set(5), ..calm() };
        assert_eq!(after(up), [("Progressing", "ScalingUp")]);
        let down = Round { wanted: 2, step: Step::Await { member: 3 }, ..calm() };
        assert_eq!(after(down), [("Progressing", "ScalingDown")]);
        let back = Round { step: Step::Await { member: 3 }, ..calm() };
        assert_eq!(after(back), [("Ready", "AllNodesReady"), ("Progressing", "ScalingDown")]);
    }

    #[test]
    fn a_refused_drain_blocks_scaling_in_the_clusters_words() {
        let step = Step::Drain { member: 3 };
        let untaken_step = Some(Untaken::Refused("too few would be left".to_owned()));
        let told = conditions(&Round { wanted: 1, step, untaken_step, ..calm() });
        assert_eq!(
            holding(&told),
            [("Progressing", "ScalingDown"), ("ScalingBlocked", "DrainRefused")]
        );
        assert_eq!(told[3].message, "too few would be left");
    }

    #[test]
    fn silence_is_told_apart_from_a_refusal() {
        let silence = Some(Untaken::Unanswered("no answer within 10s".to_owned()));
        let (step, untaken_step) = (Step::Drain { member: 3 }, silence.clone());
        let told = conditions(&Round { wanted: 2, step, untaken_step, ..calm() });
        assert_eq!((told[3].holds, told[3].reason), (true, "DrainUnanswered"));
        assert_eq!(told[3].message, "it is asked again: no answer within 10s");
        let departed = [Verdict::Forget(seat(3, 2, MemberState::Active))];
        let told = conditions(&Round { departed: &departed, unforgotten: silence, ..calm() });
        assert_eq!(told[2].reason, "NodeLost");
        assert!(!told[2].message.contains("cannot"), "{}", told[2].message);
        assert!(told[2].message.ends_with("no answer within 10s"), "{}", told[2].message);
    }

    #[test]
    fn scaling_down_is_blocked_while_nobody_knows_what_nodes_hold() {
        let blind = Round { wanted: 2, step: Step::Blind, cluster: Cluster::Leaderless, ..calm() };
        let expected = [
            ("Progressing", "ScalingDown"),
            ("Degraded", "NoLeader"),
            ("ScalingBlocked", "NoLeader"),
        ];
        assert_eq!(after(blind), expected);
    }

    #[test]
    fn a_paused_aggregator_makes_no_progress() {
        let paused = Round { paused: true, wanted: 5, ..calm() };
        assert_eq!(after(paused), [("ScalingBlocked", "Paused")]);
        let content = Round { paused: true, ..calm() };
        assert_eq!(after(content), [("Ready", "AllNodesReady")]);
    }

    #[test]
    fn data_that_only_a_lost_node_has_is_for_a_person_to_decide_about() {
        let departed = [
            Verdict::Forget(seat(2, 1, MemberState::Active)),
            Verdict::Ask(seat(3, 2, MemberState::Active)),
        ];
        let told = conditions(&Round { departed: &departed, ready: 1, ..calm() });
        assert_eq!(holding(&told), [("Degraded", "DataOnLostNode")]);
        assert!(told[2].message.ends_with("annotation sheaf.dev/give-up=3"), "{}", told[2].message);
    }

    #[test]
    fn a_lost_node_is_replaced_or_it_is_said_why_not() {
        let departed = [Verdict::Forget(seat(3, 2, MemberState::Active))];
        let lost = Round { departed: &departed, ready: 2, ..calm() };
        assert_eq!(after(lost.clone()), [("Degraded", "NodeLost")]);
        let unforgotten = Some(Untaken::Refused("it answers".to_owned()));
        let told = conditions(&Round { unforgotten, ..lost });
        assert!(told[2].message.ends_with("cannot be replaced: it answers"), "{}", told[2].message);
    }

    #[test]
    fn replacing_growing_and_rolling_are_progress() {
        let replacing = Round { displaced: Some("logs-1"), ..calm() };
        assert_eq!(after(replacing)[1], ("Progressing", "ReplacingNode"));
        let growing = Round { grows: true, ..calm() };
        assert_eq!(after(growing.clone())[1], ("Progressing", "GrowingVolumes"));
        let refused_growth = Some("the class does not allow it".to_owned());
        let stuck = Round { refused_growth, ..growing };
        assert_eq!(after(stuck)[2], ("Degraded", "VolumesCannotGrow"));
        let rolling = Round { rolling: Some(Rolling::Replaces("logs-1")), ..calm() };
        assert_eq!(after(rolling)[1], ("Progressing", "RollingUpdate"));
        let wait = Rolling::Waits("3 slots are being copied");
        let told = conditions(&Round { rolling: Some(wait), ..calm() });
        assert_eq!(told[1].message, "outdated pods wait: 3 slots are being copied");
    }

    #[test]
    fn whatever_stops_everything_is_told_in_all_conditions() {
        let mismatch = Halt::Retained(Mismatch::Size { recorded: "10Gi".into() });
        for (halt, reason) in [
            (mismatch, "RetainedVolumesMismatch"),
            (Halt::NameConflict("x".into()), "NameConflict"),
            (Halt::Invalid("InvalidSpec", "x".into()), "InvalidSpec"),
            (Halt::Failed("x".into()), "ReconcileFailed"),
        ] {
            let told = halted(&halt);
            assert_eq!(holding(&told), [("Degraded", reason), ("ScalingBlocked", reason)]);
            assert!(told.iter().all(|told| told.reason == reason && !told.message.is_empty()));
        }
    }

    #[test]
    fn a_message_has_a_bound() {
        let told = halted(&Halt::Failed("x".repeat(5_000)));
        assert_eq!(told[0].message.len(), MESSAGE_CHARS_MAX);
    }
}
