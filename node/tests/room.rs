//! The reserve of the disk: a node stops before the disk is full, and goes on by itself.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http; // requests over one plain connection
#[path = "support/process.rs"]
mod process; // the real binary

use std::fs::{self, File};

use http::{Answer, Connection, Form, Record};
use process::{Process, eventually};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Room above the reserve; other programs may take or free some of it meanwhile.
const ROOM_BYTES: u64 = 512 << 20;

fn export(node: &mut Process) -> Answer {
    let record = Record { body: "hello".to_owned(), attribute: None };
    let mut connection = Connection::open(node.otlp_http().unwrap()).unwrap();
    connection.export(Form::Json, &[record]).unwrap()
}

fn wait_for(node: &mut Process, path: &str, status: u16) -> Answer {
    eventually(&format!("{status} from {path}"), || {
        let answer = Connection::open(node.admin()?).and_then(|mut c| c.get(path)).ok()?;
        (answer.status == status).then_some(answer)
    })
}

#[test]
fn a_disk_at_its_reserve_refuses_and_takes_again_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = statvfs(folder.path()).unwrap();
    let reserve = (disk.f_bavail * disk.f_frsize).saturating_sub(ROOM_BYTES);
    let mut node = Process::start(folder.path(), &["--disk-reserve", &reserve.to_string()], &[]);
    wait_for(&mut node, "/readyz", 200);
    assert_eq!(export(&mut node).status, 200);

    let big = folder.path().join("somebody else's");
    fallocate(File::create(&big).unwrap(), FallocateFlags::empty(), 0, 2 * ROOM_BYTES).unwrap();
    let reason = wait_for(&mut node, "/readyz", 503);
    assert!(reason.body.contains("disk"), "{reason:?}");
    assert_eq!(export(&mut node).status, 503);

    fs::remove_file(big).unwrap();
    wait_for(&mut node, "/readyz", 200);
    assert_eq!(export(&mut node).status, 200);
}
