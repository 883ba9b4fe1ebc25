//! How many pods a StatefulSet begins with.

/// How many pods a StatefulSet begins with that does not exist: as many as are wanted, and one
/// for each volume or pod that is there, because their members may be in the cluster. If these
/// are too many, they are drained one by one.
pub fn first(target: u32, left: impl Iterator<Item = u32>) -> u32 {
    left.map(|ordinal| ordinal + 1).fold(target, u32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_begins_with_as_many_pods_as_are_wanted() {
        assert_eq!(first(3, [].into_iter()), 3);
    }

    #[test]
    fn what_was_left_begins_with_as_many_pods_as_it_had() {
        assert_eq!(first(3, [0, 4, 1].into_iter()), 5);
        assert_eq!(first(7, [0, 1].into_iter()), 7);
    }
}
