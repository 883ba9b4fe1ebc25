//! Whose volumes these are.
//!
//! Volumes may outlive their aggregator, and one of the same name finds them again. A record
//! that is kept with them says to what they belong, so that they are not taken for another's.

use std::fmt;

use crate::build::VolumesRecord;
use crate::validate::quantity;

/// Why the volumes that are there cannot be those of this aggregator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// They are of a cluster with another number of slots.
    Slots {
        /// What the record says.
        recorded: i32,
        /// What the spec says.
        wanted: i32,
    },
    /// They were larger.
    Size {
        /// What the record says.
        recorded: String,
    },
    /// The nodes found another cluster on them than was recorded.
    Cluster {
        /// What the record says.
        recorded: String,
        /// What the nodes say.
        found: String,
    },
    /// The record cannot be read.
    Unreadable(String),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Slots { recorded, wanted } => write!(
                f,
                "the volumes belong to a cluster of {recorded} slots, and slots is {wanted}: set \
                 it to {recorded}, or delete the claims"
            ),
            Mismatch::Size { recorded } => write!(
                f,
                "the volumes were made with a size of {recorded}: set storage.size to that or \
                 more, or delete the claims"
            ),
            Mismatch::Cluster { recorded, found } => write!(
                f,
                "the volumes were of cluster {recorded}, and the nodes found {found} on them: \
                 bring the right volumes back, or delete the record"
            ),
            Mismatch::Unreadable(why) => {
                write!(f, "{why}: repair the record of the volumes, or delete it")
            }
        }
    }
}

/// What an aggregator asks of volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The number of slots.
    pub slots: i32,
    /// The size of each, in bytes.
    pub bytes: u64,
}

/// Whether the volumes that are there belong to an aggregator that asks for this, going by their
/// `record` and by the `cluster` that the nodes say they are of. Without volumes or without a
/// record there is nothing to contradict.
///
/// # Errors
/// When they are another cluster's. Nothing may be done then.
pub fn guard(
    record: Option<&VolumesRecord>,
    has_claims: bool,
    cluster: Option<&str>,
    asked: Asked,
) -> Result<(), Mismatch> {
    let Some(record) = record.filter(|_| has_claims) else { return Ok(()) };
    if record.slots != asked.slots {
        return Err(Mismatch::Slots { recorded: record.slots, wanted: asked.slots });
    }
    if quantity::bytes(&record.size).is_none_or(|bytes| bytes > asked.bytes) {
        return Err(Mismatch::Size { recorded: record.size.clone() });
    }
    match cluster {
        Some(found) if found != record.cluster_id => {
            Err(Mismatch::Cluster { recorded: record.cluster_id.clone(), found: found.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked = Asked { slots: 256, bytes: 10 << 30 };

    fn record() -> VolumesRecord {
        VolumesRecord { cluster_id: "one".into(), slots: 256, size: "10Gi".into() }
    }

    #[test]
    fn volumes_that_were_kept_are_found_again() {
        assert_eq!(guard(Some(&record()), true, None, ASKED), Ok(()));
        assert_eq!(guard(Some(&record()), true, Some("one"), ASKED), Ok(()));
        let larger = Asked { bytes: 20 << 30, ..ASKED };
        assert_eq!(guard(Some(&record()), true, Some("one"), larger), Ok(()));
    }

    #[test]
    fn volumes_of_another_number_of_slots_are_refused() {
        let refused = guard(Some(&record()), true, None, Asked { slots: 128, ..ASKED });
        assert_eq!(refused, Err(Mismatch::Slots { recorded: 256, wanted: 128 }));
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("set it to 256"), "{told}");
    }

    #[test]
    fn volumes_that_were_larger_are_refused() {
        let refused = guard(Some(&record()), true, None, Asked { bytes: 9 << 30, ..ASKED });
        assert_eq!(refused, Err(Mismatch::Size { recorded: "10Gi".into() }));
        let odd = VolumesRecord { size: "many".into(), ..record() };
        let refused = guard(Some(&odd), true, None, ASKED);
        assert_eq!(refused, Err(Mismatch::Size { recorded: "many".into() }));
    }

    #[test]
    fn another_cluster_on_the_volumes_is_refused() {
        let refused = guard(Some(&record()), true, Some("two"), ASKED);
        let expected = Mismatch::Cluster { recorded: "one".into(), found: "two".into() };
        assert_eq!(refused, Err(expected));
    }

    #[test]
    fn nothing_is_contradicted_without_volumes_or_without_a_record() {
        let other = Asked { slots: 128, ..ASKED };
        assert_eq!(guard(Some(&record()), false, None, other), Ok(()));
        assert_eq!(guard(None, true, Some("two"), other), Ok(()));
    }
}
