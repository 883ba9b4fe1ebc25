//! Who forms a new cluster: the members that it begins with.

use std::collections::BTreeSet;

use crate::cluster::address::PeerAddress;

/// The members that a new cluster begins with. It is formed when all of them say that they
/// are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMembers {
    addresses: Vec<PeerAddress>,
    count: usize,
}

/// Why no cluster could be formed so, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInitialMembers {
    /// There is a count, but nobody to count.
    #[error("initial-count is {0}, but initial-members names nobody: say where the members are")]
    Nobody(usize),
    /// One address is there twice.
    #[error("initial-members names {0} twice: name each member once")]
    Twice(PeerAddress),
    /// The node would not be part of what it forms.
    #[error(
        "initial-members does not contain this node, {0}: add it, or set peer-address to the \
         one in the list that is this node"
    )]
    WithoutSelf(PeerAddress),
    /// It is not known how many members a name stands for.
    #[error(
        "initial-members is one DNS name, {0}: say with initial-count how many members it \
         stands for"
    )]
    Uncounted(PeerAddress),
    /// Some names would have to stand for nothing.
    #[error("initial-count is {count}, but initial-members names {named}, one member each or more")]
    TooFew {
        /// The count.
        count: usize,
        /// How many names there are.
        named: usize,
    },
    /// IP addresses stand for one member each, so the rest could never be found.
    #[error(
        "initial-count is {count}, but initial-members names {named} IP addresses: name all \
         members, or a DNS name that stands for them"
    )]
    TooMany {
        /// The count.
        count: usize,
        /// How many addresses there are.
        named: usize,
    },
}

impl InitialMembers {
    /// The node itself, which forms a cluster of its own.
    pub fn alone(own: PeerAddress) -> InitialMembers {
        InitialMembers { addresses: vec![own], count: 1 }
    }

    /// The members at `addresses`, one of which is the node's `own`, or a name that may
    /// stand for it. All together they resolve to `count` addresses; as many as are named
    /// if it is left out. Without addresses the node forms a cluster of its own.
    ///
    /// # Errors
    /// When the members could never be found, or not all of them.
    pub fn new(
        addresses: Vec<PeerAddress>,
        count: Option<usize>,
        own: &PeerAddress,
    ) -> Result<InitialMembers, InvalidInitialMembers> {
        if addresses.is_empty() {
            return match count {
                None => Ok(InitialMembers::alone(own.clone())),
                Some(count) => Err(InvalidInitialMembers::Nobody(count)),
            };
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = addresses.iter().find(|address| !seen.insert(*address)) {
            return Err(InvalidInitialMembers::Twice(twice.clone()));
        }
        let may_be_own = |address: &PeerAddress| {
            address == own || (address.is_name() && address.port() == own.port())
        };
        if !addresses.iter().any(may_be_own) {
            return Err(InvalidInitialMembers::WithoutSelf(own.clone()));
        }
        let named = addresses.len();
        match (count, addresses.as_slice()) {
            // One name that is not the node's own is that of a group.
            (None, [only]) if only != own => Err(InvalidInitialMembers::Uncounted(only.clone())),
            (Some(count), _) if count < named => {
                Err(InvalidInitialMembers::TooFew { count, named })
            }
            (Some(count), all) if count > named && !all.iter().any(PeerAddress::is_name) => {
                Err(InvalidInitialMembers::TooMany { count, named })
            }
            _ => Ok(InitialMembers { addresses, count: count.unwrap_or(named) }),
        }
    }

    /// Where the members are, in the order given; never empty. A DNS name may stand for
    /// several, and for the node itself.
    pub fn addresses(&self) -> &[PeerAddress] {
        &self.addresses
    }

    /// How many members there are: how many addresses all names resolve to, at least one.
    pub fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> PeerAddress {
        text.parse().unwrap()
    }

    /// How many members there are, for a node at `own`.
    fn count(
        addresses: &[&str],
        count: Option<usize>,
        own: &str,
    ) -> Result<usize, InvalidInitialMembers> {
        let addresses = addresses.iter().copied().map(address).collect();
        InitialMembers::new(addresses, count, &address(own)).map(|members| members.count())
    }

    #[test]
    fn a_node_that_is_told_of_no_others_is_the_only_member() {
        let own = address("10.0.0.1:1");
        let alone = InitialMembers::new(Vec::new(), None, &own).unwrap();
        assert_eq!((alone.addresses(), alone.count()), (&[own][..], 1));
        assert_eq!(count(&["a:1"], None, "a:1"), Ok(1));
    }

    #[test]
    fn without_a_count_each_name_stands_for_one_member() {
        assert_eq!(count(&["10.0.0.1:1", "10.0.0.2:1"], None, "10.0.0.2:1"), Ok(2));
        assert_eq!(count(&["a:1", "b:1", "c:1"], None, "b:1"), Ok(3));
    }

    #[test]
    fn a_name_stands_for_as_many_members_as_the_count_says() {
        assert_eq!(count(&["sheaf:1"], Some(3), "sheaf-0.sheaf:1"), Ok(3));
        assert_eq!(count(&["sheaf:1"], Some(1), "sheaf-0.sheaf:1"), Ok(1));
        assert_eq!(count(&["sheaf:1", "10.0.0.1:1"], Some(4), "10.0.0.1:1"), Ok(4));
        let only = address("sheaf:1");
        let uncounted = count(&["sheaf:1"], None, "sheaf-0.sheaf:1");
        assert_eq!(uncounted, Err(InvalidInitialMembers::Uncounted(only)));
    }

    #[test]
    fn the_node_itself_has_to_be_among_them_unless_a_name_may_stand_for_it() {
        let missing = |own| Err(InvalidInitialMembers::WithoutSelf(address(own)));
        let addresses = ["10.0.0.1:1", "10.0.0.2:1"];
        assert_eq!(count(&addresses, None, "10.0.0.3:1"), missing("10.0.0.3:1"));
        assert_eq!(count(&addresses, None, "10.0.0.1:2"), missing("10.0.0.1:2"));
        assert_eq!(count(&addresses, None, "a:1"), missing("a:1"));
        assert_eq!(count(&["10.0.0.1:1", "a:1"], None, "10.0.0.3:1"), Ok(2));
        assert_eq!(count(&["a:1", "b:1"], None, "a.example:1"), Ok(2));
        assert_eq!(count(&["a:1", "b:1"], None, "a:2"), missing("a:2"));
    }

    #[test]
    fn a_count_that_the_names_cannot_have_is_refused() {
        let too_few = InvalidInitialMembers::TooFew { count: 1, named: 2 };
        assert_eq!(count(&["a:1", "b:1"], Some(1), "a:1"), Err(too_few));
        let too_many = InvalidInitialMembers::TooMany { count: 3, named: 2 };
        let addresses = ["10.0.0.1:1", "10.0.0.2:1"];
        assert_eq!(count(&addresses, Some(3), "10.0.0.1:1"), Err(too_many));
        assert_eq!(count(&addresses, Some(2), "10.0.0.1:1"), Ok(2));
        assert_eq!(count(&[], Some(3), "a:1"), Err(InvalidInitialMembers::Nobody(3)));
    }

    #[test]
    fn a_member_is_named_once() {
        let twice = InvalidInitialMembers::Twice(address("a:1"));
        assert_eq!(count(&["a:1", "b:1", "A:1"], None, "a:1"), Err(twice));
    }
}
