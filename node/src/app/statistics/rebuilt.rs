//! Rebuilt files, as the admin port asks for them.

use std::io;

use futures::{FutureExt as _, StreamExt as _};
use sheaf_proto::files::RebuiltFiles;
use sheaf_proto::names::FILES_PATH;

use crate::admin::{AdminError, Content, Listing, Scope};
use crate::cluster::reading::{Query, ReadError, Reading, Which};
use crate::event::chunk::StreamId;

pub(super) async fn list(reading: Reading, listing: Listing) -> Result<RebuiltFiles, AdminError> {
    let Listing { scope, id, prefix, after, limit } = listing;
    let which = match id {
        Some(id) => Which::Id(stream_id(id)?),
        None => Which::Prefix(prefix),
    };
    let query = Query { which, after, limit };
    match scope {
        Scope::Node => Ok(reading.list_here(&query).await?),
        Scope::Cluster => Ok(reading.list(&query).await),
    }
}

pub(super) async fn find(
    reading: Reading,
    scope: Scope,
    id: String,
    session: u64,
) -> Result<Content, AdminError> {
    let id = stream_id(id)?;
    let found = match scope {
        Scope::Node => reading.find_here(&id, session).await?,
        Scope::Cluster => reading.find(&id, session).await?,
    };
    let (bytes, removed) = (found.file.bytes, found.file.removed_bytes);
    let waits_for = found.waits_for.map(|node| node.0);
    let tag = format!("\"{bytes}-{}\"", found.digest);
    let read = async move |part| {
        let content = reading.read(found, part).await?;
        Ok(content.map(|piece| piece.map_err(io::Error::other)).boxed())
    };
    Ok(Content { bytes, removed, tag, waits_for, read: Box::new(|part| read(part).boxed()) })
}

fn stream_id(id: String) -> Result<StreamId, AdminError> {
    StreamId::try_from(id).map_err(|error| AdminError::Unknown(error.to_string()))
}

impl From<ReadError> for AdminError {
    fn from(error: ReadError) -> AdminError {
        match &error {
            ReadError::NotSetUp => AdminError::Unknown(error.to_string()),
            ReadError::UnknownId { .. } => {
                AdminError::Unknown(format!("{error}; {FILES_PATH} lists those that there are"))
            }
            ReadError::UnknownSession { .. } => {
                AdminError::Unknown(format!("{error}; {FILES_PATH}?id= lists those that it has"))
            }
            ReadError::Unanswered { .. } | ReadError::TooMany => {
                AdminError::Unavailable(error.to_string())
            }
            ReadError::Failed(_) => AdminError::Internal(error.to_string()),
        }
    }
}
