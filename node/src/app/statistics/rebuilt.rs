//! The rebuilt files that this node has.

use std::path::PathBuf;

use sheaf_proto::files::RebuiltFile;

use crate::admin::AdminError;
use crate::checkpoint::facts::Facts;
use crate::event::chunk::StreamId;
use crate::event::fingerprint::FingerprintKey;
use crate::flush::files::{FileKey, Files, FilesError};

/// What there is of files, and how ids are hashed.
#[derive(Clone)]
pub struct Rebuilt {
    /// The files.
    pub files: Files,
    /// What ids are hashed under.
    pub key: FingerprintKey,
}

impl Rebuilt {
    /// The files, of one id if that is given, in the order of ids and sessions.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn list(
        &self,
        facts: &Facts,
        id: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RebuiltFile>, FilesError> {
        let Some(aggregation) = rebuilding(facts) else { return Ok(Vec::new()) };
        let found = self.files.on_disk(aggregation)?.into_iter();
        let wanted = found.filter(|((found, _), _)| id.is_none_or(|id| id == found.as_str()));
        let shown = wanted.take(limit).map(|((id, session), bytes)| {
            let hash = self.key.string(id.as_str().as_bytes());
            let key = FileKey { aggregation, hash, session };
            let kept = self.files.kept(&key)?.map(|kept| kept.now).unwrap_or_default();
            Ok(RebuiltFile {
                id: id.into(),
                session,
                bytes,
                checkpointed_bytes: kept.reached.length,
                waits_for: (!kept.waiting.is_empty()).then(|| kept.reached.next.number()),
                waiting: kept.waiting.len() as u64,
                contradicting: kept.contradicting,
            })
        });
        shown.collect()
    }

    /// Where a file is.
    ///
    /// # Errors
    /// When there is none.
    pub fn path(&self, facts: &Facts, id: String, session: u64) -> Result<PathBuf, AdminError> {
        let none = |reason: String| AdminError::Unknown(reason);
        let aggregation = rebuilding(facts)
            .ok_or_else(|| none("no aggregation of the type LogFiles is set up".to_owned()))?;
        let id = StreamId::try_from(id).map_err(|error| none(error.to_string()))?;
        let path = self.files.path(aggregation, &id, session);
        match path.is_file() {
            true => Ok(path),
            false => Err(none(format!("there is no file of session {session} of {id} here"))),
        }
    }
}

/// The aggregation that rebuilds files; of several, the newest.
fn rebuilding(facts: &Facts) -> Option<u32> {
    let known = facts.aggregations().iter().filter(|(_, known)| known.takes_chunks());
    known.map(|(&number, _)| number).next_back()
}
