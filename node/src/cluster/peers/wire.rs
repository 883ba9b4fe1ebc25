//! Messages and what they mean. What cannot be read names its field.
//!
//! Nodes of different versions talk to each other: a field never changes its number or
//! its meaning. The golden tests hold the bytes.

mod files; // what is told of rebuilt files
mod gaps; // files behind whose gaps too much waits
mod holdings; // what is told of journals and results
mod keeping; // what is kept of slots that others lead
mod listing; // what readers are told of rebuilt files

use std::collections::BTreeSet;

use bytes::Bytes;
use sheaf_proto::peer;
use uuid::Uuid;

use super::{Declined, PeerError};
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::identity::{Birth, Contribution, Identity};
use crate::checkpoint::raft::{self, Decision, Rpc};
use crate::cluster::formation::{Hello, State};
use crate::event::fingerprint::FingerprintKey;
use crate::event::node::NodeId;
pub(super) use files::{asked, file_part, to_file_part, to_files_request};
pub(super) use gaps::{gaps, to_gaps};
pub(super) use holdings::{
    Copied, batch, decided, one_stamped, slots, stamped, tables, to_batches, to_copies, to_decided,
    to_one_stamped, to_slots, to_stamped, to_tables, whole_second,
};
pub(super) use keeping::{carried, chunks, kept, to_begin, to_carried, to_chunk, to_end};
pub(super) use listing::{piece, to_list_request, to_read_request, to_told, told, wanted};

/// A message that no node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message's field {0} is missing or malformed")]
pub(super) struct Malformed(pub(super) &'static str);

/// 16 bytes, as ids and keys have them.
fn sixteen(bytes: &[u8], field: &'static str) -> Result<[u8; 16], Malformed> {
    bytes.try_into().map_err(|_| Malformed(field))
}

/// A hash or a digest, big-endian.
fn to_number(number: u128) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn number(bytes: &[u8], field: &'static str) -> Result<u128, Malformed> {
    sixteen(bytes, field).map(u128::from_be_bytes)
}

pub(super) fn cluster(bytes: &[u8]) -> Result<Uuid, Malformed> {
    sixteen(bytes, "cluster").map(Uuid::from_bytes)
}

pub(super) fn to_birth(birth: &Birth) -> peer::Birth {
    peer::Birth {
        uuid: Bytes::copy_from_slice(birth.uuid.as_bytes()),
        contribution: Bytes::copy_from_slice(&birth.contribution.0),
        address: birth.address.clone(),
        zone: birth.zone.clone(),
    }
}

pub(super) fn birth(message: peer::Birth) -> Result<Birth, Malformed> {
    Ok(Birth {
        uuid: Uuid::from_bytes(sixteen(&message.uuid, "birth.uuid")?),
        contribution: Contribution(sixteen(&message.contribution, "birth.contribution")?),
        address: message.address,
        zone: message.zone,
    })
}

fn births(messages: Vec<peer::Birth>) -> Result<BTreeSet<Birth>, Malformed> {
    messages.into_iter().map(birth).collect()
}

pub(super) fn to_hello(hello: &Hello) -> peer::HelloResponse {
    let state = match &hello.state {
        State::Waiting { sees } => {
            let sees = sees.iter().map(to_birth).collect();
            peer::hello_response::State::Waiting(peer::Waiting { sees })
        }
        State::Member { cluster, node, founders } => {
            peer::hello_response::State::Membership(peer::Membership {
                cluster: Bytes::copy_from_slice(cluster.as_bytes()),
                node: node.0,
                founders: founders.iter().map(to_birth).collect(),
            })
        }
    };
    peer::HelloResponse { birth: Some(to_birth(&hello.birth)), state: Some(state) }
}

pub(super) fn hello(message: peer::HelloResponse) -> Result<Hello, Malformed> {
    let state = match message.state.ok_or(Malformed("state"))? {
        peer::hello_response::State::Waiting(waiting) => {
            State::Waiting { sees: births(waiting.sees)? }
        }
        peer::hello_response::State::Membership(membership) => State::Member {
            cluster: cluster(&membership.cluster)?,
            node: NodeId(membership.node),
            founders: births(membership.founders)?,
        },
    };
    Ok(Hello { birth: birth(message.birth.ok_or(Malformed("birth"))?)?, state })
}

pub(super) fn to_joined(identity: &Identity) -> peer::Joined {
    peer::Joined {
        cluster: Bytes::copy_from_slice(identity.cluster.as_bytes()),
        node: identity.node.0,
        fingerprint_key: Bytes::copy_from_slice(&identity.fingerprint_key.0),
        founders: identity.founders.iter().map(to_birth).collect(),
    }
}

pub(super) fn joined(message: peer::Joined) -> Result<Identity, Malformed> {
    Ok(Identity {
        cluster: cluster(&message.cluster)?,
        node: NodeId(message.node),
        fingerprint_key: FingerprintKey(sixteen(&message.fingerprint_key, "fingerprint_key")?),
        founders: births(message.founders)?,
    })
}

pub(super) fn to_caller(identity: &Identity) -> peer::Caller {
    peer::Caller {
        cluster: Bytes::copy_from_slice(identity.cluster.as_bytes()),
        node: identity.node.0,
        key_digest: Bytes::copy_from_slice(&identity.fingerprint_key.digest().to_be_bytes()),
        asked: 0,
    }
}

/// Who says to call, and whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) cluster: Uuid,
    pub(super) node: NodeId,
    pub(super) key_digest: u128,
    pub(super) asked: NodeId,
}

pub(super) fn caller(message: Option<peer::Caller>) -> Result<Caller, Malformed> {
    let message = message.ok_or(Malformed("caller"))?;
    Ok(Caller {
        cluster: cluster(&message.cluster)?,
        node: NodeId(message.node),
        key_digest: u128::from_be_bytes(sixteen(&message.key_digest, "caller.key_digest")?),
        asked: NodeId(message.asked),
    })
}

pub(super) fn to_not_leader(leader: Option<raft::Member>) -> peer::NotLeader {
    let leader = leader.map(|raft::Member { id, address }| peer::Leader { node: id.0, address });
    peer::NotLeader { leader }
}

pub(super) fn leader(message: peer::NotLeader) -> Option<raft::Member> {
    let leader = message.leader?;
    Some(raft::Member { id: NodeId(leader.node), address: leader.address })
}

pub(super) fn to_call(rpc: Rpc) -> peer::RaftCall {
    match rpc {
        Rpc::AppendEntries => peer::RaftCall::AppendEntries,
        Rpc::Vote => peer::RaftCall::Vote,
        Rpc::PreVote => peer::RaftCall::PreVote,
        Rpc::Snapshot => peer::RaftCall::Snapshot,
        Rpc::TransferLeader => peer::RaftCall::TransferLeader,
    }
}

pub(super) fn call(call: peer::RaftCall) -> Result<Rpc, Malformed> {
    match call {
        peer::RaftCall::Unspecified => Err(Malformed("call")),
        peer::RaftCall::AppendEntries => Ok(Rpc::AppendEntries),
        peer::RaftCall::Vote => Ok(Rpc::Vote),
        peer::RaftCall::PreVote => Ok(Rpc::PreVote),
        peer::RaftCall::Snapshot => Ok(Rpc::Snapshot),
        peer::RaftCall::TransferLeader => Ok(Rpc::TransferLeader),
    }
}

pub(super) fn to_command(command: &Command) -> Result<Bytes, Malformed> {
    Ok(serde_json::to_vec(command).map_err(|_| Malformed("command"))?.into())
}

/// A command that this version does not know changes nothing, however often it comes.
pub(super) fn command(json: &[u8]) -> Result<Command, Declined> {
    let unreadable = |error| Declined::Never(format!("the command cannot be read: {error}"));
    serde_json::from_slice(json).map_err(unreadable)
}

pub(super) fn to_decision(decision: &Decision) -> Result<peer::Decision, Malformed> {
    let outcome = serde_json::to_vec(&decision.outcome).map_err(|_| Malformed("outcome"))?;
    Ok(peer::Decision { index: decision.index, outcome: outcome.into() })
}

pub(super) fn decision(message: peer::Decision) -> Result<Decision, PeerError> {
    let unreadable = |error| PeerError::Malformed(format!("the outcome cannot be read: {error}"));
    let outcome = serde_json::from_slice(&message.outcome).map_err(unreadable)?;
    Ok(Decision { index: message.index, outcome })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::checkpoint::facts::command::Applied;
    use crate::checkpoint::facts::refused::Refused;
    use crate::cluster::example::{born, identity, join};

    #[test]
    fn what_a_node_says_of_itself_is_understood() {
        let waiting = State::Waiting { sees: BTreeSet::from([born(1), born(2)]) };
        let founders = BTreeSet::from([born(2), born(3)]);
        let member = State::Member { cluster: Uuid::from_u128(9), node: NodeId(2), founders };
        for state in [waiting, member] {
            let said = Hello { birth: born(1), state };
            assert_eq!(hello(to_hello(&said)), Ok(said));
        }
    }

    #[test]
    fn a_new_member_learns_what_the_others_know() {
        let identity = identity(4);
        assert_eq!(joined(to_joined(&identity)), Ok(identity));
    }

    #[test]
    fn a_command_and_what_was_decided_on_it_arrive_as_they_are() {
        let sent = join(2);
        assert_eq!(command(&to_command(&sent).unwrap()), Ok(sent));
        let refused = Err(Refused::NoSlot { slot: 7 });
        for outcome in [Ok(Applied::Node(NodeId(3))), refused] {
            let sent = Decision { index: 9, outcome };
            assert_eq!(decision(to_decision(&sent).unwrap()), Ok(sent));
        }
    }

    #[test]
    fn a_command_of_another_version_is_declined_with_its_name() {
        let error = command(br#"{"Dance":{}}"#).unwrap_err();
        assert!(error.to_string().starts_with("the command cannot be read: unknown variant `Da"));
        let outcome = Bytes::from_static(br#"{"Maybe":1}"#);
        let error = decision(peer::Decision { index: 1, outcome }).unwrap_err();
        assert!(matches!(error, PeerError::Malformed(_)), "{error}");
    }

    #[test]
    fn the_bytes_of_a_decision_are_fixed() {
        let refused = Decision { index: 300, outcome: Err(Refused::NoSlot { slot: 7 }) };
        let mut bytes = vec![0x08, 0xac, 0x02, 0x12, 27];
        bytes.extend_from_slice(br#"{"Err":{"NoSlot":{"slot":7}}}"#);
        bytes[4] = bytes.len() as u8 - 5;
        assert_eq!(to_decision(&refused).unwrap().encode_to_vec(), bytes);
    }

    #[test]
    fn calls_are_told_apart() {
        for rpc in [Rpc::AppendEntries, Rpc::Vote, Rpc::PreVote, Rpc::Snapshot, Rpc::TransferLeader]
        {
            assert_eq!(call(to_call(rpc)), Ok(rpc));
        }
        assert_eq!(call(peer::RaftCall::Unspecified), Err(Malformed("call")));
    }

    #[test]
    fn a_malformed_message_names_its_field() {
        let short = peer::Birth { uuid: Bytes::from_static(b"short"), ..to_birth(&born(1)) };
        assert_eq!(birth(short), Err(Malformed("birth.uuid")));
        assert_eq!(hello(peer::HelloResponse::default()), Err(Malformed("state")));
        assert_eq!(caller(None), Err(Malformed("caller")));
        let long =
            peer::Caller { key_digest: Bytes::from_static(&[0; 17]), ..to_caller(&identity(4)) };
        assert_eq!(caller(Some(long)), Err(Malformed("caller.key_digest")));
    }
}
