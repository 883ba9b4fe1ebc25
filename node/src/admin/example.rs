//! A node for tests.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, ready};
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sheaf_proto::cluster::{Cluster, Member};
use sheaf_proto::files::{RebuiltFile, RebuiltFiles};
use sheaf_proto::queue::Queue;
use sheaf_proto::statistics::{Ledger, WindowCounts};
use tokio::sync::Notify;

use super::{AdminError, Content, Listing, Node, Scope};

/// A node that has what a test gives it.
#[derive(Default)]
pub(super) struct Fake {
    /// Why senders may not come.
    pub(super) not_ready: Option<&'static str>,
    /// The oldest first.
    pub(super) lines: Vec<String>,
    /// What of them is the node's own.
    pub(super) parts: Vec<String>,
    pub(super) broken: bool,
    /// After which window somebody is to follow.
    pub(super) after: Option<Timestamp>,
    /// The files that it lists ..
    pub(super) files: Vec<RebuiltFile>,
    /// .. and what is in the first of them.
    pub(super) content: &'static str,
    /// What it waits for before it gives that out.
    pub(super) gate: Option<Arc<Notify>>,
    /// How fast it is to work.
    pub(super) throttle: Mutex<Option<NonZeroU64>>,
}

impl Node for Fake {
    fn readiness(&self) -> Result<(), String> {
        self.not_ready.map_or(Ok(()), |reason| Err(reason.to_owned()))
    }

    fn closed_windows(
        &self,
        scope: Scope,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Box<RawValue>>, AdminError>> {
        let lines = if scope == Scope::Node { &self.parts } else { &self.lines };
        let newest_first = lines.iter().rev().take(limit);
        let raw = newest_first.map(|line| RawValue::from_string(line.clone()).unwrap()).collect();
        ready(Ok(raw)).boxed()
    }

    fn follow_windows(
        self: Arc<Self>,
        after: Option<Timestamp>,
    ) -> BoxStream<'static, Result<Box<RawValue>, AdminError>> {
        assert_eq!(after, self.after);
        let lines = self.lines.iter().map(|line| Ok(RawValue::from_string(line.clone()).unwrap()));
        stream::iter(lines.collect::<Vec<_>>()).chain(stream::pending()).boxed()
    }

    fn current_windows(
        &self,
        scope: Scope,
    ) -> BoxFuture<'_, Result<Vec<WindowCounts>, AdminError>> {
        if scope == Scope::Node {
            let window = self.lines.iter().map(|line| serde_json::from_str(line).unwrap());
            return ready(Ok(window.collect())).boxed();
        }
        ready(Err(AdminError::Unavailable("still starting".to_owned()))).boxed()
    }

    fn ledger(&self, _: Scope) -> BoxFuture<'_, Result<Ledger, AdminError>> {
        if self.broken {
            return ready(Err(AdminError::Internal("it does not balance".to_owned()))).boxed();
        }
        let ledger = Ledger {
            received: 3,
            accepted: 2,
            rejected: [("unreadable".to_owned(), 1)].into(),
            aggregations: Vec::new(),
            balanced: true,
        };
        ready(Ok(ledger)).boxed()
    }

    fn queue(&self) -> Queue {
        let throttle_bytes_per_second = *self.throttle.lock().unwrap();
        Queue { used_bytes: 1, capacity_bytes: 4, used_percent: 37.5, throttle_bytes_per_second }
    }

    fn files(&self, listing: Listing) -> BoxFuture<'_, Result<RebuiltFiles, AdminError>> {
        let Listing { scope, id, prefix, after, limit } = listing;
        let place = |file: &RebuiltFile| (file.id.clone(), file.session);
        let is_wanted = |file: &&RebuiltFile| {
            let is_named = id.as_ref().is_none_or(|id| *id == file.id);
            let is_after = after.as_ref().is_none_or(|after| place(file) > *after);
            scope == Scope::Cluster && is_named && is_after && file.id.starts_with(&prefix)
        };
        let files = self.files.iter().filter(is_wanted).take(limit).cloned().collect();
        ready(Ok(RebuiltFiles { complete: true, waits_for: None, files, next: None })).boxed()
    }

    fn file(
        &self,
        scope: Scope,
        id: String,
        session: u64,
    ) -> BoxFuture<'_, Result<Content, AdminError>> {
        if scope == Scope::Node {
            let silent = AdminError::Unavailable("its owners do not answer".to_owned());
            return ready(Err(silent)).boxed();
        }
        let first = self.files.first().filter(|file| (&file.id, file.session) == (&id, session));
        let (bytes, gate) = (Bytes::from_static(self.content.as_bytes()), self.gate.clone());
        let content = first.map(|file| Content {
            bytes: file.bytes,
            removed: file.removed_bytes,
            tag: "\"10-ab\"".to_owned(),
            waits_for: Some(2),
            read: Box::new(move |part| {
                let part = bytes.slice(part.start as usize..part.end as usize);
                let pieces = stream::once(async move {
                    if let Some(gate) = gate {
                        gate.notified().await;
                    }
                    Ok(part)
                });
                ready(Ok(pieces.boxed())).boxed()
            }),
        });
        let none = || AdminError::Unknown("there is no such file".to_owned());
        ready(content.ok_or_else(none)).boxed()
    }

    fn cluster(&self) -> Cluster {
        Cluster {
            cluster: None,
            node: None,
            formed: false,
            waiting: vec!["a:1 does not answer".to_owned()],
            leader: None,
            term: 0,
            epoch: 0,
            members: Vec::new(),
            segments: Vec::new(),
            missing: Vec::new(),
            slots: None,
            unfolded: None,
        }
    }

    fn drain(&self, member: u64) -> BoxFuture<'_, Result<Member, AdminError>> {
        let drained = match member {
            1 => Ok(serde_json::from_value(member_one()).unwrap()),
            2 => Err(AdminError::Refused("too few would be left".to_owned())),
            _ => Err(AdminError::Unknown("nobody has this id".to_owned())),
        };
        ready(drained).boxed()
    }

    fn forget(&self, member: u64) -> BoxFuture<'_, Result<Member, AdminError>> {
        self.drain(member)
    }

    fn throttle(&self, bytes_per_second: Option<NonZeroU64>) {
        *self.throttle.lock().unwrap() = bytes_per_second;
    }

    fn metrics(&self, out: &mut String) {
        out.push_str("# TYPE sheaf_test gauge\nsheaf_test 1\n");
    }
}

pub(super) fn member_one() -> Value {
    json!({
        "id": 1, "uuid": "5ea1c0de-0000-4000-8000-000000000001", "address": "a:1",
        "state": "draining", "role": "leader", "slots": 3, "owned": 3, "segments": 1,
    })
}

/// A file of ten bytes.
pub(super) fn file(id: &str, session: u64) -> RebuiltFile {
    RebuiltFile {
        id: id.to_owned(),
        session,
        bytes: 10,
        checkpointed_bytes: 4,
        waits_for: None,
        waiting: 0,
        contradicting: 0,
        removed_bytes: 0,
    }
}
