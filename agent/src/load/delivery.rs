//! One request, sent until it is clear what became of it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{answer::Answer, link::Link, request::Request};
use crate::backoff::Backoff;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// How often it was sent again.
    pub(crate) retries: u64,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The node took it.
    Acknowledged {
        /// The records in it that the node refused for good.
        rejected: u64,
        /// Why, or a warning.
        message: String,
    },
    /// The node refused it for good.
    Refused {
        /// What the node gave as the reason.
        reason: String,
    },
    /// The node could not be reached, or was busy, for too long; it may have taken it.
    GivenUp {
        /// What went wrong last.
        reason: String,
    },
}

/// Sends a request, again and again while a node says so or cannot be reached, each
/// time to the next node, but for no longer than `retry_for` after the first trouble.
/// Its id tells the nodes that it is the same. Each trouble is told to `trouble`.
pub(crate) async fn deliver(
    link: &mut Link<'_>,
    request: &Request,
    retry_for: Duration,
    mut trouble: impl FnMut(&str),
) -> Delivery {
    let mut backoff = Backoff::new();
    let mut deadline = None;
    let mut retries = 0;
    loop {
        let (wait, reason) = match link.send(request).await {
            Ok(Answer::Acknowledged { rejected, message }) => {
                return Delivery { retries, outcome: Outcome::Acknowledged { rejected, message } };
            }
            Ok(Answer::Refused { reason }) => {
                return Delivery { retries, outcome: Outcome::Refused { reason } };
            }
            Ok(Answer::Later { after, reason }) => {
                (after.unwrap_or_else(|| backoff.wait()), reason)
            }
            Err(lost) => (backoff.wait(), lost.to_string()),
        };
        trouble(&reason);
        let now = Instant::now();
        if now + wait > *deadline.get_or_insert(now + retry_for) {
            return Delivery { retries, outcome: Outcome::GivenUp { reason } };
        }
        sleep(wait).await;
        link.turn();
        retries += 1;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::load::{
        grpc::Channel,
        http::Connection,
        link::Way,
        request::Session,
        scripted::{Node, Reply},
    };

    const PATIENCE: Duration = Duration::from_secs(20);
    const TAKEN: Outcome = Outcome::Acknowledged { rejected: 0, message: String::new() };

    fn request(content: &'static [u8]) -> Request {
        Session::random().request(0, Bytes::from_static(content))
    }

    fn over_grpc(channel: &Channel) -> Link<'_> {
        Link::new(vec![Way::Grpc(channel)], 0)
    }

    fn over_http(node: &Node) -> Link<'static> {
        Link::new(vec![Way::Http(Connection::new(node.authority(), false, PATIENCE))], 0)
    }

    fn channel(node: &Node) -> Channel {
        Channel::new(node.authority(), false, 16_384, PATIENCE)
    }

    /// Delivers ten bytes over gRPC, with the prefix.
    async fn grpc(channel: &Channel, retry_for: Duration) -> (Delivery, Vec<String>) {
        let request = request(b"\0\0\0\0\x0a0123456789");
        let mut troubles = Vec::new();
        let trouble = |reason: &str| troubles.push(reason.to_owned());
        let delivery = deliver(&mut over_grpc(channel), &request, retry_for, trouble).await;
        (delivery, troubles)
    }

    fn refused(reason: &str) -> Delivery {
        Delivery { retries: 0, outcome: Outcome::Refused { reason: reason.into() } }
    }

    #[tokio::test]
    async fn a_busy_node_gets_the_same_request_after_the_time_it_told() {
        let node = Node::start(false, [Reply::Busy(Some(400)), Reply::Busy(None)]).await;
        let begun = Instant::now();
        let (delivery, troubles) = grpc(&channel(&node), PATIENCE).await;
        assert_eq!(delivery, Delivery { retries: 2, outcome: TAKEN });
        assert!(begun.elapsed() >= Duration::from_millis(400));
        assert_eq!(troubles, ["UNAVAILABLE: scripted"; 2]);
        assert_eq!(node.received(), [b"0123456789"; 3]);
    }

    #[tokio::test]
    async fn what_is_refused_for_good_is_not_sent_again() {
        let node = Node::start(false, [Reply::Invalid, Reply::Exhausted(None)]).await;
        let channel = channel(&node);
        assert_eq!(grpc(&channel, PATIENCE).await.0, refused("INVALID_ARGUMENT: scripted"));
        assert_eq!(grpc(&channel, PATIENCE).await.0, refused("RESOURCE_EXHAUSTED: scripted"));
        assert_eq!(node.received().len(), 2);
    }

    #[tokio::test]
    async fn exhausted_resources_that_come_back_are_waited_for() {
        let node = Node::start(false, [Reply::Exhausted(Some(1))]).await;
        let (delivery, _) = grpc(&channel(&node), PATIENCE).await;
        assert_eq!(delivery, Delivery { retries: 1, outcome: TAKEN });
    }

    #[tokio::test]
    async fn a_lost_connection_is_opened_again() {
        let node = Node::start(false, [Reply::Closed, Reply::Taken, Reply::Closed]).await;
        let channel = channel(&node);
        let (delivery, _) = grpc(&channel, PATIENCE).await;
        assert_eq!(delivery, Delivery { retries: 1, outcome: TAKEN });
        let (delivery, _) = grpc(&channel, PATIENCE).await;
        assert_eq!(delivery, Delivery { retries: 1, outcome: TAKEN });
        assert_eq!(node.connections(), 3);
    }

    #[tokio::test]
    async fn a_node_that_says_nothing_is_asked_again() {
        let node = Node::start(false, [Reply::Silence]).await;
        let impatient = Channel::new(node.authority(), false, 16_384, Duration::from_millis(100));
        let (delivery, troubles) = grpc(&impatient, PATIENCE).await;
        assert_eq!(delivery, Delivery { retries: 1, outcome: TAKEN });
        assert_eq!(troubles, ["no answer within 100ms"]);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_node_for_ever() {
        let node = Node::start(false, []).await;
        let (authority, channel) = (node.authority(), channel(&node));
        node.stop();
        let (delivery, troubles) = grpc(&channel, Duration::from_millis(300)).await;
        let Outcome::GivenUp { reason } = delivery.outcome else { panic!("{delivery:?}") };
        assert!(reason.starts_with(&format!("connect to {authority}: ")), "{reason}");
        assert!(delivery.retries >= 1 && troubles.len() as u64 == delivery.retries + 1);
    }

    #[tokio::test]
    async fn a_partial_success_is_read_on_both_transports() {
        let told = Outcome::Acknowledged { rejected: 3, message: "scripted".into() };
        let node = Node::start(false, [Reply::Partly(3)]).await;
        assert_eq!(grpc(&channel(&node), PATIENCE).await.0.outcome, told);
        let node = Node::start(true, [Reply::Partly(3)]).await;
        assert_eq!(http(&node).await.outcome, told);
    }

    #[tokio::test]
    async fn what_one_node_does_not_take_or_answer_goes_to_the_next_under_the_same_id() {
        for http in [false, true] {
            let nodes = [
                Node::start(http, [Reply::Busy(None)]).await,
                Node::start(http, [Reply::Closed]).await,
            ];
            let channels = nodes.each_ref().map(channel);
            let connection = |node: &Node| Connection::new(node.authority(), false, PATIENCE);
            let ways: Vec<_> = match http {
                true => nodes.iter().map(|node| Way::Http(connection(node))).collect(),
                false => channels.iter().map(Way::Grpc).collect(),
            };
            let request = request(b"\0\0\0\0\x0a0123456789");
            let delivery = deliver(&mut Link::new(ways, 0), &request, PATIENCE, |_| {}).await;
            assert_eq!(delivery, Delivery { retries: 2, outcome: TAKEN });
            let ids = nodes.each_ref().map(Node::ids);
            let id = request.id.to_str().unwrap().to_owned();
            assert_eq!(ids, [vec![id.clone(), id.clone()], vec![id]]);
        }
    }

    async fn http(node: &Node) -> Delivery {
        deliver(&mut over_http(node), &request(b"0123456789"), PATIENCE, |_| {}).await
    }

    #[tokio::test]
    async fn http_is_retried_like_grpc() {
        let replies = [Reply::Closed, Reply::Busy(Some(1_000)), Reply::Busy(None)];
        let node = Node::start(true, replies).await;
        let begun = Instant::now();
        assert_eq!(http(&node).await, Delivery { retries: 3, outcome: TAKEN });
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!(node.received(), [b"0123456789"; 4]);
        let node = Node::start(true, [Reply::Invalid]).await;
        assert_eq!(http(&node).await, refused("400 Bad Request: scripted"));
    }

    #[tokio::test]
    async fn an_http_connection_serves_one_request_after_another() {
        let node = Node::start(true, [Reply::Taken, Reply::Busy(None)]).await;
        let mut link = over_http(&node);
        for _ in 0..3 {
            deliver(&mut link, &request(b"0123456789"), PATIENCE, |_| {}).await;
        }
        assert_eq!((node.received().len(), node.connections()), (4, 1));
    }

    #[tokio::test]
    async fn frames_are_no_longer_than_asked() {
        let node = Node::start(false, []).await;
        let size = 300_000;
        let content = [&[0, 0, 4, 0x93, 0xe0][..], &vec![7; size]].concat();
        let request = Session::random().request(0, content.into());
        for (longest, count) in [(16_384, 19), (100_000, 4), (1 << 20, 1)] {
            let channel = Channel::new(node.authority(), false, longest, PATIENCE);
            // After a first answer the node's own limits are known.
            grpc(&channel, PATIENCE).await;
            deliver(&mut over_grpc(&channel), &request, PATIENCE, |_| {}).await;
            let frames = node.frames();
            assert!(frames.iter().all(|&length| length <= longest), "{frames:?}");
            assert_eq!((frames.len(), frames.iter().sum::<usize>()), (count, size + 5));
        }
    }
}
