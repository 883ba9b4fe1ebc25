//! How a cluster comes to be: once, and without a coordinator.
//!
//! A node that belongs to no cluster goes round by round. In a round it asks each of its
//! initial members who it is, itself included; when all have answered or failed to, it
//! decides. Unless the round has ended its wait, it then tells whoever asks which births
//! it saw in it. When everybody waits and everybody sees the same births, the cluster is
//! a function of those births, and each node derives the same one.
//!
//! That is safe as long as rounds are kept apart: what a node decides by was asked after
//! it had told what it saw in the round before (docs/adr/0007-formation.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};
use uuid::Uuid;

use crate::checkpoint::identity::{Birth, Identity};
use crate::event::fingerprint::FingerprintKey;
use crate::event::node::NodeId;

/// The key under which the founders' uuids are hashed to a cluster's id. It is no secret,
/// and must never change.
const CLUSTER_KEY: &[u8; 16] = b"sheaf formation ";
/// The id of the first founder.
const FIRST: NodeId = NodeId(1);

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What it was born with.
    pub birth: Birth,
    /// Whether it belongs to a cluster.
    pub state: State,
}

/// Whether a node belongs to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet, and its volume never did.
    Waiting {
        /// The [`sight`] of its last round; nothing before the first has ended.
        sees: BTreeSet<Birth>,
    },
    /// It does, for ever. This is durable before anybody hears of it.
    Member {
        /// The cluster.
        cluster: Uuid,
        /// The node's id in it.
        node: NodeId,
        /// The nodes that formed it, as they were born.
        founders: BTreeSet<Birth>,
    },
}

/// What came of asking an address in one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The address, or a name that could not be resolved.
    pub address: String,
    /// The answer, or why there is none.
    pub hello: Result<Hello, String>,
}

/// A cluster as its founders make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    founders: BTreeSet<Birth>,
}

impl Founding {
    /// The cluster that these nodes form, or have formed.
    pub fn of(founders: BTreeSet<Birth>) -> Founding {
        Founding { founders }
    }

    /// The cluster's id: a hash of the founders' uuids in their order, as a UUID of
    /// version 8.
    pub fn cluster(&self) -> Uuid {
        let mut hasher = SipHasher13::new_with_key(CLUSTER_KEY);
        for founder in &self.founders {
            hasher.write(founder.uuid.as_bytes());
        }
        let hash = hasher.finish128().as_u128();
        uuid::Builder::from_custom_bytes(hash.to_be_bytes()).into_uuid()
    }

    /// The key of the cluster's fingerprints: whoever does not know each contribution
    /// knows nothing of it.
    pub fn fingerprint_key(&self) -> FingerprintKey {
        let mut key = [0; 16];
        for founder in &self.founders {
            for (byte, contributed) in key.iter_mut().zip(founder.contribution.0) {
                *byte ^= contributed;
            }
        }
        FingerprintKey(key)
    }

    /// The founders with their ids: from 1, in the order of their uuids.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Birth)> {
        (FIRST.0..).map(NodeId).zip(&self.founders)
    }

    /// Who the founder is that was born with this uuid, if there is one.
    pub fn founder(&self, uuid: Uuid) -> Option<Identity> {
        let (node, _) = self.members().find(|(_, founder)| founder.uuid == uuid)?;
        Some(self.identity(node))
    }

    fn identity(&self, node: NodeId) -> Identity {
        Identity {
            cluster: self.cluster(),
            node,
            fingerprint_key: self.fingerprint_key(),
            founders: self.founders.clone(),
        }
    }

    /// The founders, as each member has to tell them.
    pub fn founders(&self) -> &BTreeSet<Birth> {
        &self.founders
    }
}

/// Who a node is that forms a cluster alone.
pub fn alone(birth: Birth) -> Identity {
    Founding::of(BTreeSet::from([birth])).identity(FIRST)
}

/// What a node that belongs to no cluster is to do after a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Be this founder: all of them see the same.
    Form(Identity),
    /// Be this founder: another one has formed the cluster before.
    Adopt(Identity),
    /// Ask to be taken in: the cluster exists, and this node is not one of its founders.
    Join {
        /// The cluster.
        cluster: Uuid,
        /// Where members of it are reached.
        through: Vec<String>,
    },
    /// Tell what was seen, and ask again.
    Wait(Vec<Why>),
}

/// Why a node waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// An initial member gave no answer.
    NotReached {
        /// Its address.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// An initial member does not see the same nodes; for as long as rounds go on, that
    /// is normal.
    SeesOthers {
        /// Its address.
        address: String,
        /// The addresses of births that this node sees and it does not.
        lacks: Vec<String>,
        /// The addresses of births that it sees and this node does not.
        also: Vec<String>,
    },
    /// All have answered, and they are too few or too many.
    Count {
        /// How many nodes answer.
        found: usize,
        /// How many there have to be.
        expected: usize,
    },
    /// None of the initial members is this node, so it can only join.
    NotListed,
    /// Two nodes have the same birth: one volume is a copy of another.
    Copied {
        /// Their addresses.
        addresses: Vec<String>,
    },
    /// The initial members belong to different clusters.
    Clusters {
        /// Where a member of each is reached.
        members: BTreeMap<Uuid, String>,
    },
    /// A member names this node as a founder of a cluster that its founders do not make.
    Contradiction {
        /// The member's address.
        address: String,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NotReached { address, reason } => write!(f, "{address} is not reached: {reason}"),
            Why::SeesOthers { address, lacks, also } => {
                write!(f, "{address} does not see the same nodes yet")?;
                if !lacks.is_empty() {
                    write!(f, ", it lacks {}", lacks.join(", "))?;
                }
                if !also.is_empty() {
                    write!(f, ", it sees also {}", also.join(", "))?;
                }
                Ok(())
            }
            Why::Count { found, expected } => {
                write!(f, "{found} nodes answer, and a cluster of {expected} is to be formed")
            }
            Why::NotListed => f.write_str(
                "this node is not one of the initial members: it joins when they have formed a \
                 cluster",
            ),
            Why::Copied { addresses } => {
                let addresses = addresses.join(", ");
                write!(f, "the volumes of {addresses} are copies of one: empty all but one")
            }
            Why::Clusters { members } => {
                f.write_str("the initial members belong to different clusters")?;
                let name = |(cluster, address)| write!(f, ", {address} to {cluster}");
                members.iter().try_for_each(name)
            }
            Why::Contradiction { address } => {
                write!(f, "{address} names founders that do not make the cluster that it names")
            }
        }
    }
}

/// The births of the waiting nodes that a round has shown: what a node tells from the
/// round's end on.
pub fn sight(seen: &[Answer]) -> BTreeSet<Birth> {
    let births = seen.iter().filter_map(|answer| match &answer.hello {
        Ok(Hello { birth, state: State::Waiting { .. } }) => Some(birth.clone()),
        _ => None,
    });
    births.collect()
}

/// What `own`, a node that belongs to no cluster, is to do after a round in which it has
/// `seen` an answer, or its lack, for every address of its initial members. They are
/// `expected` nodes, and `own` is among them, found like the others.
///
/// [`Decision::Form`] and [`Decision::Adopt`] have to be durable before the node tells
/// of them, or of a new sight.
pub fn decide(own: &Birth, expected: usize, seen: &[Answer]) -> Decision {
    let members = members(seen);
    let clusters: BTreeMap<_, _> =
        members.iter().map(|member| (member.cluster, member.address.to_owned())).collect();
    match clusters.keys().next() {
        None => form(own, expected, seen),
        Some(&cluster) if clusters.len() == 1 => enter(own, cluster, &members),
        Some(_) => Decision::Wait(vec![Why::Clusters { members: clusters }]),
    }
}

struct Member<'a> {
    address: &'a str,
    birth: &'a Birth,
    cluster: Uuid,
    founders: &'a BTreeSet<Birth>,
}

fn members(seen: &[Answer]) -> Vec<Member<'_>> {
    seen.iter().filter_map(member).collect()
}

fn member(answer: &Answer) -> Option<Member<'_>> {
    match &answer.hello {
        Ok(Hello { birth, state: State::Member { cluster, founders, .. } }) => {
            Some(Member { address: &answer.address, birth, cluster: *cluster, founders })
        }
        _ => None,
    }
}

/// What to do when there is a cluster.
fn enter(own: &Birth, cluster: Uuid, members: &[Member<'_>]) -> Decision {
    // Two nodes with one id in one cluster could elect two leaders.
    if let Some(other) = members.iter().find(|member| member.birth.uuid == own.uuid) {
        let addresses = vec![own.address.clone(), other.address.to_owned()];
        return Decision::Wait(vec![Why::Copied { addresses }]);
    }
    let names_own = |member: &Member<'_>| {
        let founding = Founding { founders: member.founders.clone() };
        Some((member.address.to_owned(), founding.founder(own.uuid)?))
    };
    match members.iter().find_map(names_own) {
        Some((_, identity)) if identity.cluster == cluster => Decision::Adopt(identity),
        Some((address, _)) => Decision::Wait(vec![Why::Contradiction { address }]),
        None => {
            let through = members.iter().map(|member| member.address.to_owned()).collect();
            Decision::Join { cluster, through }
        }
    }
}

/// What to do when nobody belongs to a cluster.
fn form(own: &Birth, expected: usize, seen: &[Answer]) -> Decision {
    let founders = sight(seen);
    let mut why: Vec<_> = seen.iter().filter_map(|answer| difference(answer, &founders)).collect();
    let all_reached = seen.iter().all(|answer| answer.hello.is_ok());
    if all_reached && founders.len() != expected {
        why.push(Why::Count { found: founders.len(), expected });
    }
    let founding = Founding { founders };
    let identity = founding.founder(own.uuid).filter(|_| founding.founders.contains(own));
    if identity.is_none() {
        why.push(Why::NotListed);
    }
    why.extend(copied(&founding.founders));
    match identity {
        Some(identity) if why.is_empty() => Decision::Form(identity),
        _ => Decision::Wait(why),
    }
}

/// Why this answer keeps a cluster of these founders from being formed.
fn difference(answer: &Answer, founders: &BTreeSet<Birth>) -> Option<Why> {
    let address = answer.address.clone();
    let sees = match &answer.hello {
        Err(reason) => return Some(Why::NotReached { address, reason: reason.clone() }),
        Ok(Hello { state: State::Waiting { sees }, .. }) if sees != founders => sees,
        Ok(_) => return None,
    };
    let only_in = |these: &BTreeSet<Birth>, others: &BTreeSet<Birth>| {
        these.difference(others).map(|birth| birth.address.clone()).collect()
    };
    Some(Why::SeesOthers { address, lacks: only_in(founders, sees), also: only_in(sees, founders) })
}

/// Whether two of the births, which are sorted by their uuids, have the same.
fn copied(births: &BTreeSet<Birth>) -> Option<Why> {
    let pair = births.iter().zip(births.iter().skip(1)).find(|(one, next)| one.uuid == next.uuid);
    pair.map(|(one, next)| Why::Copied {
        addresses: vec![one.address.clone(), next.address.clone()],
    })
}

#[cfg(test)]
mod tests;
