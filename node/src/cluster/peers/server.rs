//! Answers other nodes.

use std::sync::Arc;
use std::time::Duration;

use sheaf_proto::peer;
use sheaf_proto::peer::peer_server::{Peer, PeerServer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, async_trait};

use super::MESSAGE_BYTES_MAX;
use super::wire::{self, Malformed};
use crate::checkpoint::identity::Identity;
use crate::cluster::standing::{Declined, Standing};

/// A connection on which nothing comes back for this long, and then for as long again, is
/// given up.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Answers other nodes for `standing`, until `shutdown` is cancelled.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    standing: Arc<Standing>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = PeerServer::new(Server { standing })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.cancelled_owned(),
        )
        .await
}

struct Server {
    standing: Arc<Standing>,
}

#[async_trait]
impl Peer for Server {
    async fn hello(
        &self,
        _: Request<peer::HelloRequest>,
    ) -> Result<Response<peer::HelloResponse>, Status> {
        let hello = self.standing.hello().ok_or_else(|| Status::from(Declined::Starting))?;
        Ok(Response::new(wire::to_hello(&hello)))
    }

    async fn join(
        &self,
        request: Request<peer::JoinRequest>,
    ) -> Result<Response<peer::JoinResponse>, Status> {
        let peer::JoinRequest { cluster, birth } = request.into_inner();
        let (identity, raft) = self.standing.member()?;
        if wire::cluster(&cluster)? != identity.cluster {
            return Err(Declined::OtherCluster.into());
        }
        let birth = wire::birth(birth.ok_or(Malformed("birth"))?)?;
        let answer = match Standing::take_in(&raft, birth).await? {
            Ok(node) => peer::join_response::Answer::Joined(wire::to_joined(&identity, node)),
            Err(leader) => peer::join_response::Answer::NotLeader(peer::NotLeader {
                leader: leader
                    .map(|leader| peer::Leader { node: leader.id.0, address: leader.address }),
            }),
        };
        Ok(Response::new(peer::JoinResponse { answer: Some(answer) }))
    }

    async fn raft(
        &self,
        request: Request<peer::RaftRequest>,
    ) -> Result<Response<peer::RaftResponse>, Status> {
        let (identity, raft) = self.standing.member()?;
        let request = request.into_inner();
        let rpc = wire::call(request.call())?;
        check(&identity, request.caller.ok_or(Malformed("caller"))?)?;
        let body = raft.answer(rpc, request.body).await;
        Ok(Response::new(peer::RaftResponse { body }))
    }
}

/// Refuses whoever is of another cluster.
fn check(identity: &Identity, caller: peer::Caller) -> Result<(), Status> {
    if wire::cluster(&caller.cluster)? != identity.cluster {
        return Err(Declined::OtherCluster.into());
    }
    let digest = u128::from_be_bytes(wire::sixteen(&caller.key_digest, "key_digest")?);
    if digest != identity.fingerprint_key.digest() {
        return Err(Declined::OtherKey.into());
    }
    Ok(())
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Status {
        Status::invalid_argument(malformed.to_string())
    }
}

impl From<Declined> for Status {
    fn from(declined: Declined) -> Status {
        let message = declined.to_string();
        match declined {
            Declined::Starting | Declined::NotMember | Declined::Undecided(_) => {
                Status::unavailable(message)
            }
            Declined::OtherCluster | Declined::OtherKey | Declined::Refused(_) => {
                Status::failed_precondition(message)
            }
        }
    }
}
