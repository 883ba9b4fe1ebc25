//! A cluster, for people.

use sheaf_proto::cluster::{Cluster, Member, MemberState, Role, Segment, SegmentState};

use crate::{
    table::Table,
    text::{grouped, printable},
};

/// Stands for what the node does not know or was not told.
const UNKNOWN: &str = "-";

/// Who leads and the members, with `segments` also the journals; or what the node waits
/// for while it belongs to no cluster.
pub(crate) fn cluster(cluster: &Cluster, segments: bool) -> String {
    if !cluster.formed {
        return waiting(&cluster.waiting);
    }
    let mut text = head(cluster) + "\n" + &members(&cluster.members);
    if segments {
        text.push('\n');
        text.push_str(&self::segments(&cluster.segments));
    }
    text.trim_end().into()
}

/// How far a member is that is to leave.
pub(crate) fn leaving(member: &Member) -> String {
    let id = member.id;
    match member.state {
        MemberState::Draining => {
            let vote = match member.role {
                Role::Leader => "leads",
                Role::Voter => "votes",
                Role::Learner | Role::None => "does not vote",
            };
            let (slots, segments) = (grouped(member.owned), grouped(member.segments));
            format!(
                "node {id} is draining: it owns {slots} slots, has {segments} segments and {vote}"
            )
        }
        MemberState::Drained => format!("node {id} is drained and can be stopped"),
        MemberState::Forgotten => format!("node {id} is forgotten"),
        state @ (MemberState::Joining | MemberState::Active) => {
            format!("node {id} is {}", self::state(state))
        }
    }
}

fn waiting(reasons: &[String]) -> String {
    let mut text = String::from("no cluster yet");
    if !reasons.is_empty() {
        text.push_str("; the node waits:");
    }
    for reason in reasons {
        text.push_str("\n  ");
        text.push_str(&printable(reason));
    }
    text
}

fn head(cluster: &Cluster) -> String {
    let leader = match cluster.leader {
        Some(leader) => format!("node {leader} leads"),
        None => "no leader".to_owned(),
    };
    format!(
        "cluster {}: {leader}, term {}, epoch {}; node {} answers",
        known(cluster.cluster),
        cluster.term,
        cluster.epoch,
        known(cluster.node),
    )
}

fn members(members: &[Member]) -> String {
    let heads = [
        "node",
        "address",
        "zone",
        "state",
        "role",
        "reachable",
        "slots",
        "owned",
        "filling",
        "lag",
        "clock",
    ];
    let mut table = Table::new(6, heads);
    for member in members {
        table.row([
            member.id.to_string(),
            printable(&member.address),
            known(member.zone.as_deref().map(printable)),
            state(member.state).to_owned(),
            role(member.role).to_owned(),
            known(member.reachable.map(|reachable| if reachable { "yes" } else { "NO" })),
            member.slots.to_string(),
            member.owned.to_string(),
            member.filling.to_string(),
            known(member.lag.map(grouped)),
            known(member.clock_offset_micros.map(clock)),
        ]);
    }
    table.render()
}

/// How far a clock is ahead or behind, to a tenth of a millisecond.
fn clock(micros: i64) -> String {
    format!("{:+.1} ms", micros as f64 / 1e3)
}

fn segments(segments: &[Segment]) -> String {
    let mut table = Table::new(4, ["segment", "writer", "copies", "state", "entries", "trimmed"]);
    for segment in segments {
        let copies: Vec<String> = segment.copies.iter().map(u64::to_string).collect();
        let copies = Some(copies.join(",")).filter(|copies| !copies.is_empty());
        table.row([
            segment.id.to_string(),
            segment.writer.to_string(),
            copies.unwrap_or_else(|| "none".to_owned()),
            segment_state(segment.state).to_owned(),
            known(segment.entries.map(grouped)),
            grouped(segment.trimmed),
        ]);
    }
    table.render()
}

fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::Joining => "joining",
        MemberState::Active => "active",
        MemberState::Draining => "draining",
        MemberState::Drained => "drained",
        MemberState::Forgotten => "forgotten",
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Voter => "voter",
        Role::Learner => "learner",
        Role::None => "none",
    }
}

fn segment_state(state: SegmentState) -> &'static str {
    match state {
        SegmentState::Open => "open",
        SegmentState::Sealing => "sealing",
        SegmentState::Sealed => "sealed",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn member(id: u64, changes: Value) -> Value {
        let mut member = json!({
            "id": id, "uuid": format!("5ea1c0de-0000-4000-8000-{id:012}"),
            "address": format!("sheaf-{}.sheaf:9465", id - 1), "zone": "a", "state": "active",
            "role": "voter", "reachable": true, "slots": 128, "owned": 256, "lag": 0, "clock_offset_micros": -1_250,
        });
        member.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        member
    }

    fn shown(changes: Value, segments: bool) -> Vec<String> {
        let mut cluster = json!({
            "cluster": "5ea1c0de-0000-4000-8000-000000000000", "node": 2, "formed": true,
            "leader": 1, "term": 4, "epoch": 37, "members": [], "segments": [],
        });
        cluster.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let cluster: Cluster = serde_json::from_value(cluster).unwrap();
        super::cluster(&cluster, segments).lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_cluster_is_a_table_of_its_members() {
        let unreachable = json!({
            "zone": null, "state": "joining", "role": "learner", "reachable": false,
            "slots": 0, "owned": 5, "filling": 85, "lag": 12_345, "clock_offset_micros": 3_000_040,
        });
        let gone = json!({
            "state": "drained", "role": "none", "reachable": null, "slots": 0, "owned": 0,
            "lag": null, "clock_offset_micros": null,
        });
        let members = [
            member(1, json!({"role": "leader", "clock_offset_micros": null})),
            member(2, unreachable),
            member(13, gone),
        ];
        let lines = [
            "cluster 5ea1c0de-0000-4000-8000-000000000000: \
             node 1 leads, term 4, epoch 37; node 2 answers",
            "  node  address              zone  state    role     reachable  slots  owned  filling     lag       clock",
            "  1     sheaf-0.sheaf:9465   a     active   leader   yes          128    256        0       0           -",
            "  2     sheaf-1.sheaf:9465   -     joining  learner  NO             0      5       85  12,345  +3000.0 ms",
            "  13    sheaf-12.sheaf:9465  a     drained  none     -              0      0        0       -           -",
        ];
        assert_eq!(shown(json!({ "members": members }), false), lines);
    }

    #[test]
    fn a_member_that_leaves_says_what_it_still_has() {
        let shown = |changes| leaving(&serde_json::from_value(member(3, changes)).unwrap());
        let draining = json!({"state": "draining", "owned": 1_085, "segments": 2});
        let text = "node 3 is draining: it owns 1,085 slots, has 2 segments and votes";
        assert_eq!(shown(draining), text);
        assert_eq!(shown(json!({"state": "drained"})), "node 3 is drained and can be stopped");
    }

    #[test]
    fn segments_are_a_table_of_their_own() {
        let segments = json!([
            {"id": 7, "writer": 1, "copies": [1, 3], "state": "sealed", "entries": 4_200,
             "trimmed": 1_000},
            {"id": 8, "writer": 2, "copies": [], "state": "sealed", "entries": 9, "trimmed": 0},
            {"id": 9, "writer": 1, "copies": [1, 2], "state": "open", "trimmed": 0},
        ]);
        let lines = [
            "  segment  writer  copies  state   entries  trimmed",
            "  7        1       1,3     sealed    4,200    1,000",
            "  8        2       none    sealed        9        0",
            "  9        1       1,2     open          -        0",
        ];
        let cluster = json!({ "members": [member(1, json!({}))], "segments": segments });
        assert_eq!(shown(cluster.clone(), true)[4..], lines);
        assert_eq!(shown(cluster, false).len(), 3);
    }

    #[test]
    fn a_cluster_without_a_leader_says_so() {
        let lines = shown(json!({"leader": null}), false);
        assert!(lines[0].contains(": no leader, term 4,"), "{}", lines[0]);
    }

    #[test]
    fn a_node_without_a_cluster_says_what_it_waits_for() {
        let waiting = ["sheaf-1.sheaf:9465 does not answer", "sheaf-2.sheaf:9465 is unknown"];
        let unformed = json!({"cluster": null, "node": null, "formed": false});
        assert_eq!(shown(unformed.clone(), true), ["no cluster yet"]);
        let mut unformed = unformed;
        unformed["waiting"] = json!(waiting);
        let lines = [
            "no cluster yet; the node waits:",
            "  sheaf-1.sheaf:9465 does not answer",
            "  sheaf-2.sheaf:9465 is unknown",
        ];
        assert_eq!(shown(unformed, true), lines);
    }

    #[test]
    fn what_nodes_are_called_cannot_command_the_terminal() {
        let hostile = "\u{1b}[2J\n\u{202e}";
        let members = [member(1, json!({"address": hostile, "zone": hostile}))];
        let waiting = json!({"formed": false, "waiting": [hostile]});
        for lines in [shown(json!({ "members": members }), false), shown(waiting, false)] {
            let text = lines.join("\n");
            assert!(text.contains(r"\u{1b}[2J\u{a}\u{202e}"), "{text}");
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        }
    }
}
