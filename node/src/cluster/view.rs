//! The cluster as this node knows it, in the shape of `GET /v1/cluster`.

use sheaf_proto::cluster as shape;

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::segments::{Segment, SegmentState};
use crate::checkpoint::identity::Identity;
use crate::checkpoint::raft::Status;
use crate::cluster::departures::SILENCE;
use crate::cluster::standing::Standing;
use crate::event::node::NodeId;

/// What a node knows of its cluster, or what it waits for while it belongs to none.
pub fn view(standing: &Standing) -> shape::Cluster {
    match standing.member() {
        Ok((identity, raft)) => {
            let mut cluster = of_member(&identity, &raft.status(), &raft.facts().borrow());
            for member in &mut cluster.members {
                let silence = raft.silent_for(NodeId(member.id));
                member.reachable =
                    raft.leading().map(|_| silence.is_some_and(|silence| silence < SILENCE));
            }
            cluster
        }
        Err(reason) => {
            let waits = standing.waits_for();
            let waiting = match waits.as_slice() {
                [] => vec![reason.to_string()],
                waits => waits.iter().map(ToString::to_string).collect(),
            };
            shape::Cluster {
                cluster: None,
                node: None,
                formed: false,
                waiting,
                leader: None,
                term: 0,
                epoch: 0,
                members: Vec::new(),
                segments: Vec::new(),
                missing: Vec::new(),
                slots: None,
                unfolded: None,
            }
        }
    }
}

fn of_member(identity: &Identity, status: &Status, facts: &Facts) -> shape::Cluster {
    let members = facts.members().iter().map(|(&id, member)| shape::Member {
        id: id.0,
        uuid: member.uuid,
        address: member.address.clone(),
        zone: member.zone.clone(),
        state: state(member.state),
        role: role(id, status),
        reachable: None,
        slots: facts.primary_of(id).len() as u64,
        owned: facts.owner_of(id).len() as u64,
        filling: facts.filled_by(id).len() as u64,
        segments: facts.segments().values().filter(|known| known.nodes().any(|n| n == id)).count()
            as u64,
        lag: lag(id, status),
        clock_offset_micros: None,
    });
    let segments = facts.segments().values().zip(facts.all_trimmed());
    let segments = segments.map(|(known, (id, trimmed))| segment(id, known, trimmed));
    shape::Cluster {
        cluster: Some(identity.cluster),
        node: Some(identity.node.0),
        formed: true,
        waiting: Vec::new(),
        leader: status.leader.map(|leader| leader.0),
        term: status.term,
        epoch: facts.slots().values().map(|slot| slot.epoch).max().unwrap_or(0),
        members: members.collect(),
        segments: segments.collect(),
        missing: facts.latest_cut().missing.keys().copied().collect(),
        slots: Some(facts.settings().slots),
        // What the node does is not for the facts to tell.
        unfolded: None,
    }
}

fn state(state: MemberState) -> shape::MemberState {
    match state {
        MemberState::Joining => shape::MemberState::Joining,
        MemberState::Active => shape::MemberState::Active,
        MemberState::Draining => shape::MemberState::Draining,
        MemberState::Drained => shape::MemberState::Drained,
        MemberState::Forgotten => shape::MemberState::Forgotten,
    }
}

fn role(id: NodeId, status: &Status) -> shape::Role {
    if status.leader == Some(id) {
        shape::Role::Leader
    } else if status.voters.contains(&id) {
        shape::Role::Voter
    } else if status.learners.contains(&id) {
        shape::Role::Learner
    } else {
        shape::Role::None
    }
}

/// How far a member is behind; only the leader knows.
fn lag(id: NodeId, status: &Status) -> Option<u64> {
    if !status.leads() {
        return None;
    }
    let last = status.last.unwrap_or(0);
    let has = if id == status.id { status.last } else { *status.replicated.get(&id)? };
    Some(last.saturating_sub(has.unwrap_or(0)))
}

fn segment(id: u64, segment: &Segment, trimmed: u64) -> shape::Segment {
    shape::Segment {
        id,
        writer: segment.writer.0,
        copies: segment.nodes().map(|node| node.0).collect(),
        state: match segment.state {
            SegmentState::Open => shape::SegmentState::Open,
            SegmentState::Sealing => shape::SegmentState::Sealing,
            SegmentState::Sealed { .. } => shape::SegmentState::Sealed,
        },
        entries: segment.end().map(|end| end.entries),
        trimmed,
    }
}
