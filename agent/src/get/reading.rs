//! The bytes of a file, from a place on.

use http::{StatusCode, header};
use sheaf_proto::{
    files::RebuiltFile,
    names::{FILE_WAITS_FOR_HEADER, FILES_PATH},
};
use tokio::time::sleep;

use super::{
    LOOK_EVERY,
    catalog::escaped,
    note,
    remote::{Answer, GetError, Remote},
    sink::Sink,
};
use crate::text::grouped;

/// What is read at once to find where lines begin.
const BLOCK_BYTES: u64 = 64 << 10;
/// What is compared before a file is gone on with.
const OVERLAP_BYTES: u64 = 4 << 10;

/// Where reading is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) session: u64,
    /// All bytes before were read.
    pub(super) at: u64,
}

impl Place {
    pub(super) fn new(file: &RebuiltFile, at: u64) -> Place {
        Place { id: file.id.clone(), session: file.session, at }
    }

    /// Goes to what is left of the file if it has not come as far yet, and says so.
    pub(super) fn pass_removed(&mut self, file: &RebuiltFile) {
        let RebuiltFile { id, session, bytes, removed_bytes, .. } = file;
        let passed = removed_bytes.saturating_sub(self.at);
        if passed == 0 {
            return;
        }
        let which = match self.at {
            0 => format!("the first {} bytes", grouped(passed)),
            at => format!("{} bytes from byte {at} on", grouped(passed)),
        };
        let left = if removed_bytes < bytes { "" } else { ": nothing is left" };
        note(&format!(
            "{which} of session {session} of {id} were removed because of their age{left}"
        ));
        self.at = *removed_bytes;
    }

    fn path(&self) -> String {
        format!("{FILES_PATH}/{}/{}", escaped(&self.id), self.session)
    }
}

/// What comes of a range.
enum Part {
    /// The bytes from the first on, as they come.
    Begins(Answer),
    /// There is nothing from there on, here and now.
    Beyond,
}

/// Copies what a file has up to an end, or more if it has grown meanwhile. What breaks off goes on
/// where it was: a file only grows.
///
/// # Errors
/// When no node sends it, it was removed meanwhile, or it cannot be written.
pub(super) async fn copy(
    remote: &mut Remote,
    place: &mut Place,
    end: u64,
    sink: &mut Sink,
) -> Result<(), GetError> {
    let mut asked = 0;
    while place.at < end {
        let mut answer = match part(remote, place, None).await? {
            Part::Begins(answer) => answer,
            Part::Beyond => {
                // It was asked of a node that has less, as others are silent.
                asked += 1;
                remote.fails("it has less of the file than was told", asked)?;
                sleep(LOOK_EVERY).await;
                continue;
            }
        };
        warn_of_less(&answer);
        loop {
            match answer.next().await {
                Ok(Some(bytes)) => {
                    sink.write(&bytes)?;
                    place.at += bytes.len() as u64;
                    remote.has_come();
                    asked = 0;
                }
                Ok(None) => break,
                Err(reason) => {
                    asked += 1;
                    remote.fails(&reason, asked)?;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Where the last lines of a file begin; 0 if what is left of it has no more of them. A line end
/// at its end belongs to the line before.
///
/// # Errors
/// When no node sends it, or it was removed meanwhile.
pub(super) async fn last_lines(
    remote: &mut Remote,
    file: &RebuiltFile,
    lines: u64,
) -> Result<u64, GetError> {
    let (mut start, mut left) = (file.bytes, lines);
    if lines == 0 {
        return Ok(file.bytes);
    }
    while start > file.removed_bytes {
        let from = start.saturating_sub(BLOCK_BYTES).max(file.removed_bytes);
        let block = block(remote, file, from, start).await?;
        for (offset, byte) in block.iter().enumerate().rev() {
            let behind = from + offset as u64 + 1;
            if *byte == b'\n' && behind < file.bytes {
                left -= 1;
                if left == 0 {
                    return Ok(behind);
                }
            }
        }
        start = from;
    }
    Ok(0)
}

/// Where to go on behind what a file on disk has of a file.
///
/// # Errors
/// When it has something else, or no node says what there is.
pub(super) async fn behind(
    remote: &mut Remote,
    file: &RebuiltFile,
    sink: &mut Sink,
) -> Result<u64, GetError> {
    let length = sink.length()?;
    if length > file.bytes {
        return Err(sink.foreign(&format!(
            "it has {length} bytes, and session {} of {} only {}",
            file.session, file.id, file.bytes
        )));
    }
    if length < file.removed_bytes {
        return Err(sink.foreign(&format!(
            "it has {length} bytes, and the first {} of session {} of {} were removed because of \
             their age: what lies between cannot be read any more; --force replaces it by what is \
             left",
            file.removed_bytes, file.session, file.id
        )));
    }
    let from = length.saturating_sub(OVERLAP_BYTES).max(file.removed_bytes);
    if length > 0 && sink.last(length - from)? != block(remote, file, from, length).await? {
        let (id, session) = (&file.id, file.session);
        return Err(sink.foreign(&format!("session {session} of {id} does not begin like it")));
    }
    Ok(length)
}

/// The bytes of a file from one place to another, which it has.
async fn block(
    remote: &mut Remote,
    file: &RebuiltFile,
    from: u64,
    to: u64,
) -> Result<Vec<u8>, GetError> {
    let (mut block, mut place, mut asked) = (Vec::new(), Place::new(file, from), 0);
    while place.at < to {
        let trouble = match part(remote, &place, Some(to)).await? {
            Part::Beyond => Some("it has less of the file than was told".to_owned()),
            Part::Begins(mut answer) => loop {
                match answer.next().await {
                    Ok(Some(bytes)) => {
                        place.at += bytes.len() as u64;
                        block.extend_from_slice(&bytes);
                        remote.has_come();
                        asked = 0;
                    }
                    Ok(None) => break None,
                    Err(reason) => break Some(reason),
                }
            },
        };
        if let Some(reason) = trouble {
            asked += 1;
            remote.fails(&reason, asked)?;
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(block)
}

async fn part(remote: &mut Remote, place: &Place, to: Option<u64>) -> Result<Part, GetError> {
    let last = to.map(|to| (to - 1).to_string()).unwrap_or_default();
    let (path, from) = (place.path(), place.at);
    let answer = remote.get(&path, Some(&format!("bytes={from}-{last}"))).await?;
    match answer.head.status {
        StatusCode::PARTIAL_CONTENT if begins(&answer, from) => Ok(Part::Begins(answer)),
        StatusCode::OK if from == 0 && to.is_none() => Ok(Part::Begins(answer)),
        // It was listed: another node may lead that has not come as far yet.
        StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND => Ok(Part::Beyond),
        StatusCode::GONE => Err(GetError::removed(&place.id, place.session, from)),
        status => Err(remote.unusable(&path, status.to_string())),
    }
}

/// Whether a part begins where it was asked to.
fn begins(answer: &Answer, from: u64) -> bool {
    let range = answer.head.headers.get(header::CONTENT_RANGE);
    let range = range.and_then(|range| range.to_str().ok()).unwrap_or_default();
    range.starts_with(&format!("bytes {from}-"))
}

fn warn_of_less(answer: &Answer) {
    let node = answer.head.headers.get(FILE_WAITS_FOR_HEADER).and_then(|node| node.to_str().ok());
    if let Some(node) = node {
        note(&format!(
            "node {node} does not answer, and may have more: this is what a checkpoint has"
        ));
    }
}
