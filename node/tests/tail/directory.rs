//! Where the nodes that run are reached, and what they have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sheaf_proto::files::{RebuiltFile, RebuiltFiles};

use crate::http::{Connection, escaped};

/// Where a node is reached, in this life.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) chunks: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// The nodes that run.
#[derive(Clone, Default)]
pub(crate) struct Directory(Arc<Mutex<BTreeMap<usize, Place>>>);

impl Directory {
    pub(crate) fn enter(&self, node: usize, place: Place) {
        self.0.lock().unwrap().insert(node, place);
    }

    pub(crate) fn remove(&self, node: usize) {
        self.0.lock().unwrap().remove(&node);
    }

    /// Where a node is, if it runs.
    pub(crate) fn find(&self, node: usize) -> Option<Place> {
        self.0.lock().unwrap().get(&node).copied()
    }

    /// Where one of them is.
    pub(crate) fn any(&self) -> Option<Place> {
        let places = self.0.lock().unwrap();
        fastrand::choice(places.values()).copied()
    }

    /// The files of an id, the oldest session first; `None` while nobody knows all of them.
    pub(crate) fn files(&self, id: &str) -> Option<Vec<RebuiltFile>> {
        let mut admin = Connection::open(self.any()?.admin).ok()?;
        let answer = admin.get(&format!("/v1/files?id={}", escaped(id))).ok()?;
        assert!([200, 503].contains(&answer.status), "{}", answer.body);
        if answer.status == 503 {
            return None;
        }
        let list: RebuiltFiles = serde_json::from_str(&answer.body).unwrap();
        list.complete.then_some(list.files)
    }

    /// What a file has; `None` while nobody knows.
    pub(crate) fn read(&self, id: &str, session: u64) -> Option<Vec<u8>> {
        let mut admin = Connection::open(self.any()?.admin).ok()?;
        let path = format!("/v1/files/{}/{session}", escaped(id));
        let (status, body) = admin.fetch(&path, None).ok()?;
        assert!([200, 503].contains(&status), "{}", String::from_utf8_lossy(&body));
        (status == 200).then_some(body)
    }
}
