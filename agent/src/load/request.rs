//! A request on its way, and what it is called.

use bytes::Bytes;
use http::HeaderValue;

/// What one run calls its requests, so that a node counts one that is sent again only once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session(u128);

/// What is sent, however often.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `SESSION/SEQUENCE`.
    pub(crate) id: HeaderValue,
    /// With gRPC's prefix, if it goes that way.
    pub(crate) content: Bytes,
}

impl Session {
    /// Unlike any other.
    pub(crate) fn random() -> Self {
        Session(fastrand::u128(..))
    }

    /// The request with this number, counted from 0.
    pub(crate) fn request(self, number: u64, content: Bytes) -> Request {
        let id = format!("{:032x}/{}", self.0, number + 1);
        let id = HeaderValue::try_from(id).expect("digits and a slash are allowed in a header");
        Request { id, content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_called_by_its_session_and_its_place_in_it() {
        let request = Session(0xab).request(11, Bytes::new());
        assert_eq!(request.id, "000000000000000000000000000000ab/12");
    }
}
