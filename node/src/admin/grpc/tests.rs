use axum::Extension;
use futures::TryStreamExt as _;
use prost::Message as _;
use sheaf_proto::service::statistics_client::StatisticsClient;
use sheaf_proto::service::{
    FollowWindowsRequest, GetClusterRequest, GetLedgerRequest, ListOpenWindowsRequest,
    ListWindowsRequest,
};
use tonic::Code;

use super::*;
use crate::admin::example::Fake;

const FIRST: &str = r#"{"aggregation":"by-foo","type":"DistinctLogs","attribute":"foo",
    "window":{"start":"2026-11-21T03:00:00Z","end":"2026-11-21T03:00:10Z"},
    "complete":true,"revision":1,"records":6,"distinct":5,"unknown":1,
    "counts":[{"value":"baz","count":2},{"value":7,"count":2}],"other":{"values":1,"count":1}}"#;
const LOST: &str = r#"{"aggregation":"by-foo","type":"DistinctLogs","attribute":"foo",
    "window":{"start":"2026-11-21T03:00:10Z","end":"2026-11-21T03:00:20Z"},
    "complete":false,"waits_for":{"slots":"0-9","nodes":[2],"segments":[7]},"settled":true,
    "lost":[{"node":3,"segments":[7],"slots":"3","records":4,
             "from":"2026-11-21T03:00:11Z","until":"2026-11-21T03:00:15.5Z"}],
    "revision":2,"records":1,"distinct":1,"upper_bound":true,"unknown":0,
    "counts":[{"value":"AP8=","type":"bytes","count":1}],"other":{"values":0,"count":0}}"#;

fn client(node: Fake) -> StatisticsClient<Router> {
    let paths = serve(Router::new(), Arc::new(node));
    StatisticsClient::new(paths.layer(Extension(Followers::default())))
}

fn counted() -> Fake {
    Fake { lines: vec![FIRST.to_owned(), LOST.to_owned()], ..Fake::default() }
}

async fn all(windows: Result<Response<tonic::Streaming<service::Window>>, Status>) -> Vec<String> {
    let windows: Vec<_> = windows.unwrap().into_inner().try_collect().await.unwrap();
    windows.iter().map(end_of).collect()
}

fn end_of(window: &service::Window) -> String {
    let end = window.end.unwrap();
    Timestamp::new(end.seconds, end.nanos).unwrap().to_string()
}

#[tokio::test]
async fn closed_windows_come_newest_first_and_no_more_than_are_asked_for() {
    let asked = |limit| async move {
        let request = ListWindowsRequest { limit, ..Default::default() };
        all(client(counted()).list_windows(request).await).await
    };
    let (first, lost) = ("2026-11-21T03:00:10Z", "2026-11-21T03:00:20Z");
    assert_eq!(asked(None).await, [lost, first]);
    assert_eq!(asked(Some(1)).await, [lost]);
    assert!(asked(Some(0)).await.is_empty());
    assert_eq!(asked(Some(u32::MAX)).await, [lost, first]);
}

/// Wire format: what a client of another version reads.
#[tokio::test]
async fn a_message_has_all_that_the_line_has_and_its_bytes_never_change() {
    let request = ListWindowsRequest { limit: Some(1), ..Default::default() };
    let windows = client(counted()).list_windows(request).await.unwrap().into_inner();
    let windows: Vec<_> = windows.try_collect().await.unwrap();
    let expected = concat!(
        "0a0662792d666f6f",             // aggregation
        "120c44697374696e63744c6f6773", // type
        "1a03666f6f",                   // attribute
        "220608ba9284d806",             // start
        "2a0608c49284d806",             // end
        "3a0b0a03302d391201021a0107",   // waits_for
        "4001",                         // settled
        "4a2008031201071a013320042a0608bb9284d806320c08bf9284d8061080cab5ee01", // lost
        "5002",                         // revision
        "5801",                         // records
        "6001",                         // distinct
        "6801",                         // upper_bound
        "7a080a042a0200ff1001",         // counts
        "820100",                       // other
    );
    assert_eq!(hex(&windows[0].encode_to_vec()), expected);
}

#[tokio::test]
async fn closed_windows_are_the_clusters_or_the_nodes_part_of_them() {
    let part = FIRST.replace(r#""complete":true"#, r#""slots":"0-84","complete":false"#);
    let listed = |scope: i32| {
        let node = Fake { parts: vec![part.clone()], ..counted() };
        async move {
            let request = ListWindowsRequest { limit: None, scope };
            let windows = client(node).list_windows(request).await?.into_inner();
            let windows: Vec<_> = windows.try_collect().await?;
            Ok::<_, Status>(windows.into_iter().map(|window| (window.slots, window.complete)))
        }
    };
    let parts = listed(service::Scope::Node.into()).await.unwrap().collect::<Vec<_>>();
    assert_eq!(parts, [(Some("0-84".to_owned()), false)]);
    for scope in [service::Scope::Unspecified, service::Scope::Cluster] {
        let whole = listed(scope.into()).await.unwrap().collect::<Vec<_>>();
        assert_eq!(whole, [(None, false), (None, true)]);
    }
    let status = listed(3).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "there is no scope 3"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn open_windows_and_the_ledger_are_the_nodes_or_the_clusters() {
    let open = |scope: i32| async move {
        client(counted()).list_open_windows(ListOpenWindowsRequest { scope }).await
    };
    assert_eq!(all(open(service::Scope::Node.into()).await).await.len(), 2);
    for scope in [service::Scope::Unspecified, service::Scope::Cluster] {
        let status = open(scope.into()).await.err().unwrap();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "still starting"));
    }
    let status = open(3).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "there is no scope 3"));

    let request = GetLedgerRequest::default();
    let ledger = client(counted()).get_ledger(request).await.unwrap().into_inner();
    assert_eq!((ledger.received, ledger.accepted, ledger.balanced), (3, 2, true));
    assert_eq!(ledger.rejected, [("unreadable".to_owned(), 1)].into());
    let broken = Fake { broken: true, ..Fake::default() };
    let status = client(broken).get_ledger(request).await.err().unwrap();
    assert_eq!(status.code(), Code::Internal);
}

#[tokio::test]
async fn a_node_without_a_cluster_says_what_it_waits_for() {
    let cluster = client(counted()).get_cluster(GetClusterRequest {}).await.unwrap().into_inner();
    assert_eq!((cluster.formed, cluster.node), (false, 0));
    assert_eq!(cluster.waiting, ["a:1 does not answer"]);
}

#[tokio::test]
async fn who_follows_gets_what_comes_after_the_time_that_was_said() {
    let after: Timestamp = "2026-11-21T03:00:00.5Z".parse().unwrap();
    let node = Fake { after: Some(after), ..counted() };
    let said = prost_types::Timestamp { seconds: after.as_second(), nanos: 500_000_000 };
    let request = FollowWindowsRequest { after: Some(said) };
    let mut windows = client(node).follow_windows(request).await.unwrap().into_inner();
    for end in ["2026-11-21T03:00:10Z", "2026-11-21T03:00:20Z"] {
        assert_eq!(end_of(&windows.message().await.unwrap().unwrap()), end);
    }
    let never = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    let request = FollowWindowsRequest { after: Some(never) };
    let status = client(counted()).follow_windows(request).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn no_more_may_follow_than_there_are_places_and_who_leaves_gives_his_back() {
    let mut client = client(counted());
    let mut following = Vec::new();
    for _ in 0..FOLLOWERS_MAX {
        following.push(client.follow_windows(FollowWindowsRequest::default()).await.unwrap());
    }
    let refused = client.follow_windows(FollowWindowsRequest::default()).await.err().unwrap();
    let expected = (Code::ResourceExhausted, "16 already follow");
    assert_eq!((refused.code(), refused.message()), expected);
    following.pop();
    client.follow_windows(FollowWindowsRequest::default()).await.unwrap();
}
