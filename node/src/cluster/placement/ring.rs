//! The ring: for each slot, in which order nodes are asked to own it.
//!
//! A node stands at many points of a circle of 2^64, and the slots stand at equal
//! distances. A slot asks the nodes in the order in which they come after it. Another
//! node changes nothing in the order of the rest.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;

/// The points of one node. More of them mix the orders better and take longer to sort.
const REPLICAS: u32 = 64;

/// Not a secret: it only has to be the same in every version and every cluster.
const KEY: &[u8; 16] = b"sheaf's ring key";

/// The order of nodes for each slot; nodes go by their place in a list.
pub(super) struct Ring {
    nodes: usize,
    ranks: Vec<usize>,
}

impl Ring {
    /// The ring of at least one node; their ids are in ascending order.
    pub(super) fn new(nodes: &[NodeId]) -> Ring {
        let mut points: Vec<(u64, usize)> = nodes
            .iter()
            .enumerate()
            .flat_map(|(place, &node)| (0..REPLICAS).map(move |it| (position(node, it), place)))
            .collect();
        points.sort_unstable();
        let mut ranks = vec![0; SLOTS * nodes.len()];
        for (slot, ranks) in ranks.chunks_exact_mut(nodes.len()).enumerate() {
            let start = points.partition_point(|&(position, _)| position < slot_position(slot));
            let mut seen = vec![false; nodes.len()];
            let mut rank = 0;
            for &(_, place) in points[start..].iter().chain(&points[..start]) {
                if !seen[place] {
                    seen[place] = true;
                    ranks[place] = rank;
                    rank += 1;
                }
            }
        }
        Ring { nodes: nodes.len(), ranks }
    }

    /// How many nodes a slot asks before this one.
    pub(super) fn rank(&self, slot: usize, node: usize) -> usize {
        self.ranks[slot * self.nodes + node]
    }
}

/// Where a node stands. It never changes between versions: it decides which data moves.
fn position(node: NodeId, replica: u32) -> u64 {
    let mut hasher = SipHasher13::new_with_key(KEY);
    hasher.write(&node.0.to_le_bytes());
    hasher.write(&replica.to_le_bytes());
    hasher.finish()
}

fn slot_position(slot: usize) -> u64 {
    (slot as u64) << (u64::BITS - u8::BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the order in which the slot asks them.
    fn order(nodes: &[u64], slot: usize) -> Vec<u64> {
        let ring = Ring::new(&nodes.iter().copied().map(NodeId).collect::<Vec<_>>());
        let mut places: Vec<usize> = (0..nodes.len()).collect();
        places.sort_by_key(|&place| ring.rank(slot, place));
        places.into_iter().map(|place| nodes[place]).collect()
    }

    /// The expected numbers were computed by a separate implementation of SipHash-1-3.
    #[test]
    fn positions_never_change() {
        assert_eq!(position(NodeId(0), 0), 0xb0c1_5ca5_891a_4885);
        assert_eq!(position(NodeId(1), 0), 0xa4a5_2cb4_b038_314c);
        assert_eq!(position(NodeId(1), 1), 0xf844_761c_323b_2bce);
        assert_eq!(position(NodeId(1), 63), 0xf8cd_3138_5115_5861);
        assert_eq!(position(NodeId(u64::MAX), 7), 0xa7a4_8cb5_6c67_2fef);
    }

    /// From the same separate implementation; the last slots look past the circle's end.
    #[test]
    fn orders_never_change() {
        let orders = |slots: std::ops::Range<usize>| -> Vec<String> {
            slots.map(|slot| order(&[1, 2, 3], slot).iter().map(u64::to_string).collect()).collect()
        };
        assert_eq!(orders(10..16), ["213", "123", "213", "231", "231", "321"]);
        assert_eq!(orders(250..256), ["312", "132", "231", "312", "123", "213"]);
    }

    #[test]
    fn a_node_that_joins_changes_nothing_in_the_order_of_the_rest() {
        for slot in 0..SLOTS {
            let mut with_five = order(&[1, 2, 3, 4, 5], slot);
            with_five.retain(|&node| node != 3);
            assert_eq!(with_five, order(&[1, 2, 4, 5], slot), "slot {slot}");
        }
    }
}
