//! Files behind whose gaps too much waits.

use sheaf_proto::peer;

use super::files::sequence;
use super::{Malformed, number, to_number};
use crate::flush::gaps::Gaps;

pub(in crate::cluster::peers) fn to_gaps(gaps: &Gaps) -> peer::GapsResponse {
    let gaps = gaps.iter().map(|(hash, session, next)| {
        let file = Some(peer::FileName { hash: to_number(hash), session });
        peer::Gap { file, next: next.number() }
    });
    peer::GapsResponse { gaps: gaps.collect() }
}

pub(in crate::cluster::peers) fn gaps(message: peer::GapsResponse) -> Result<Gaps, Malformed> {
    let gaps = message.gaps.into_iter().map(|peer::Gap { file, next }| {
        let peer::FileName { hash, session } = file.ok_or(Malformed("gaps.file"))?;
        Ok((number(&hash, "gaps.file.hash")?, session, sequence(next, "gaps.next")?))
    });
    gaps.collect()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn two() -> Gaps {
        let files = [(1, 7, 300), (2, u64::MAX, 1)];
        let files = files.map(|(hash, session, next)| (hash, session, sequence(next, "").unwrap()));
        files.into_iter().collect()
    }

    #[test]
    fn files_with_gaps_are_understood() {
        for told in [Gaps::default(), two()] {
            let sent = to_gaps(&told).encode_to_vec();
            assert_eq!(gaps(peer::GapsResponse::decode(&sent[..]).unwrap()), Ok(told));
        }
    }

    #[test]
    fn the_bytes_of_gaps_are_fixed() {
        let one: Gaps = two().iter().take(1).collect();
        let hash = [&[0x0a, 16][..], &[0; 15], &[1]].concat();
        let file = [&hash[..], &[0x10, 7]].concat();
        let gap = [&[0x0a, file.len() as u8][..], &file, &[0x10, 0xac, 2]].concat();
        let sent = [&[0x0a, gap.len() as u8][..], &gap].concat();
        assert_eq!(to_gaps(&one).encode_to_vec(), sent);
    }

    #[test]
    fn what_is_no_gap_is_malformed() {
        let hash = to_number(1);
        let short = peer::FileName { hash: hash.slice(1..), session: 7 };
        let whole = peer::FileName { hash, session: 7 };
        for (file, next, field) in [
            (None, 1, "gaps.file"),
            (Some(short), 1, "gaps.file.hash"),
            (Some(whole), 0, "gaps.next"),
        ] {
            let message = peer::GapsResponse { gaps: vec![peer::Gap { file, next }] };
            assert_eq!(gaps(message), Err(Malformed(field)));
        }
    }
}
