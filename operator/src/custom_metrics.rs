//! The API `custom.metrics.k8s.io`: how full the nodes are, for whoever scales them. It is an
//! aggregated API: the cluster's API server passes on what it is asked, and says for whom.
//!
//! Every operator serves it, whether it acts or not. The one that acts keeps the certificate that
//! all of them serve it with.

mod serving; // connections, and what they may take

mod answering; // one question: who asks, whether they may, and the answer
mod values; // pods, and what their nodes say

mod keeping; // the certificate is renewed, and trusted before it is served
mod reading; // what it is served with now

mod rounds; // the same, every minute

mod place; // where all of it is in the cluster, and whose it is

mod question; // what is asked for; pure
mod rotation; // which certificate is served, which are trusted, what is due; pure

mod certificate; // a certificate with its authority and its key: made, read, written
mod documents; // discovery and OpenAPI; pure
mod front_proxy; // whom the API server speaks for; pure
mod refusal; // what is not answered; pure

#[cfg(test)]
mod tests;

pub use keeping::keep;
pub use place::Place;
pub use serving::serve;

/// The group of the API, and its version.
const GROUP: &str = "custom.metrics.k8s.io";
const VERSION: &str = "v1beta2";
/// What the API server calls the version of a group that somebody serves.
const API_SERVICE: &str = "v1beta2.custom.metrics.k8s.io";
