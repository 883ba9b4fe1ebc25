//! What a sender calls its request, so that a retry of it is counted once.

use http::HeaderMap;
use sheaf_proto::names::REQUEST_ID_HEADER;

use super::Export;
use crate::event::entry::{MalformedRequestId, RequestId};
use crate::source::refusal::Refusal;

/// Reads the request id from headers, or from gRPC's metadata, which are headers too.
pub(super) fn request_id(
    intake: &impl Export,
    headers: &HeaderMap,
) -> Result<Option<RequestId>, Refusal> {
    parse(headers).map_err(|malformed| {
        intake.unusable();
        Refusal::Undecodable(format!("{REQUEST_ID_HEADER}: {malformed}"))
    })
}

fn parse(headers: &HeaderMap) -> Result<Option<RequestId>, MalformedRequestId> {
    let mut named = headers.get_all(REQUEST_ID_HEADER).iter();
    let Some(id) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        return Err(MalformedRequestId);
    }
    id.to_str().map_err(|_| MalformedRequestId)?.trim().parse().map(Some)
}
