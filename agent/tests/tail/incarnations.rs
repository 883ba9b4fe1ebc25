//! Files that are renamed, deleted, truncated, replaced.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, symlink},
};

use super::{
    agent::{Scene, inode, lines, rebuilt, wait_until},
    node::{Mood, Node},
};

#[test]
fn a_renamed_file_is_read_to_its_end_before_the_next_begins() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    let mut log = scene.log("a.log");
    log.write_all(b"one\n").unwrap();
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    scene.rename("a.log", "a.log.1");
    scene.write("a.log", "next\n");
    // The writer comes late, and then later still.
    log.write_all(b"two\n").unwrap();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n", b"next\n"]);
    assert!(node.is_in_order(&scene.id("a.log")));
    log.write_all(b"three\n").unwrap();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\nthree\n", b"next\n"]);
    assert!(agent.stop());
}

#[test]
fn a_rename_that_is_noticed_late_loses_nothing() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    agent.freeze();
    scene.write("a.log", "two\n");
    scene.rename("a.log", "a.log.1");
    scene.write("a.log", "next\n");
    agent.thaw();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n", b"next\n"]);
    // And while nobody looks, twice.
    agent.kill();
    scene.write("a.log", "next two\n");
    scene.rename("a.log.1", "a.log.2");
    scene.rename("a.log", "a.log.1");
    scene.write("a.log", "last\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n", b"next\nnext two\n", b"last\n"]);
    assert!(agent.stop());
}

#[test]
fn a_file_that_is_renamed_to_a_followed_name_stays_what_it_is() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.follow("*.log*");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    scene.rename("a.log", "a.log.1");
    scene.write("a.log", "next\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n", b"next\n"]);
    scene.write("a.log.1", "late\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\nlate\n", b"next\n"]);
    agent.kill();
    scene.rename("a.log.1", "a.log.2");
    scene.write("a.log.2", "later\n");
    let agent = scene.follow("*.log*");
    rebuilt(&node, &scene.id("a.log"), &[b"one\nlate\nlater\n", b"next\n"]);
    assert_eq!(node.ids(), [scene.id("a.log")]);
    assert!(agent.stop());
}

#[test]
fn a_deleted_file_is_read_to_its_end() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    agent.freeze();
    scene.write("a.log", lines(0..300_000));
    fs::remove_file(scene.path("a.log")).unwrap();
    scene.write("a.log", "next\n");
    agent.thaw();
    let first = [b"one\n".to_vec(), lines(0..300_000)].concat();
    rebuilt(&node, &scene.id("a.log"), &[&first, b"next\n"]);
    assert!(node.is_in_order(&scene.id("a.log")));
    assert!(agent.stop());
}

#[test]
fn of_a_truncated_file_the_rest_is_read_from_its_copy() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", lines(0..100));
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..100)]);
    agent.freeze();
    scene.write("a.log", lines(100..200));
    fs::copy(scene.path("a.log"), scene.path("a.log.1")).unwrap();
    fs::write(scene.path("a.log"), "next\n").unwrap();
    agent.thaw();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..200), b"next\n"]);
    // Once more, while nobody looks; the file grows beyond what was read of it.
    agent.kill();
    scene.write("a.log", "two\n");
    fs::copy(scene.path("a.log"), scene.path("a.log.2")).unwrap();
    fs::write(scene.path("a.log"), lines(500..600)).unwrap();
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..200), b"next\ntwo\n", &lines(500..600)]);
    assert!(agent.stop());
}

#[test]
fn a_file_that_was_truncated_and_grew_again_is_a_new_session_whatever_its_banner() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    let banner = "=".repeat(3_000);
    let first = format!("{banner}\none\n");
    scene.write("a.log", &first);
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[first.as_bytes()]);
    agent.freeze();
    let second = format!("{banner}\ntwo, and more than there was before\n");
    fs::write(scene.path("a.log"), &second).unwrap();
    agent.thaw();
    rebuilt(&node, &scene.id("a.log"), &[first.as_bytes(), second.as_bytes()]);
    agent.says("there is no copy");
    assert!(agent.stop());
}

#[test]
fn the_hole_of_a_writer_that_does_not_append_is_not_sent() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    let log = File::create(scene.path("a.log")).unwrap();
    log.write_all_at(&lines(0..10_000), 0).unwrap();
    let end = lines(0..10_000).len() as u64;
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..10_000)]);
    fs::copy(scene.path("a.log"), scene.path("a.log.1")).unwrap();
    log.set_len(0).unwrap();
    log.write_all_at(b"after the hole\n", end).unwrap();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..10_000), b"after the hole\n"]);
    assert!(agent.stop());
}

#[test]
fn a_reused_inode_with_the_same_banner_is_a_new_session() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "banner\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"banner\n"]);
    assert!(agent.stop());
    let before = inode(&scene.path("a.log"));
    fs::remove_file(scene.path("a.log")).unwrap();
    // The file system gives the number away again, sooner or later.
    for attempt in 0..10_000 {
        scene.write("a.log", "");
        if inode(&scene.path("a.log")) == before {
            break;
        }
        assert!(attempt < 9_999, "no file system for this test");
        scene.rename("a.log", &format!("other-{attempt}"));
    }
    scene.write("a.log", "banner\nmore\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"banner\n", b"banner\nmore\n"]);
    assert!(agent.stop());
}

#[test]
fn empty_files_are_no_sessions_and_never_the_same() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node);
    scene.write("a.log", "");
    let agent = scene.start();
    agent.says("follows 1 files");
    agent.kill();
    fs::remove_file(scene.path("a.log")).unwrap();
    scene.write("a.log", "");
    let agent = scene.start();
    scene.write("a.log", "one\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    scene.rename("a.log", "a.log.1");
    for _ in 0..3 {
        scene.write("a.log", "");
        fs::remove_file(scene.path("a.log")).unwrap();
    }
    scene.write("a.log", "two\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n", b"two\n"]);
    assert!(agent.stop());
}

#[test]
fn a_link_that_is_switched_leads_to_another_session_and_back() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).and(&["--poll", "100ms"]);
    fs::create_dir(scene.path("real")).unwrap();
    scene.write("real/one", "one\n");
    scene.write("real/two", "two\n");
    let switch = |to: &str| {
        symlink(scene.path(to), scene.path("new")).unwrap();
        scene.rename("new", "a.log");
    };
    switch("real/one");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    switch("real/two");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n", b"two\n"]);
    scene.write("real/two", "more\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n", b"two\nmore\n"]);
    switch("real/one");
    scene.write("real/one", "again\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\nagain\n", b"two\nmore\n"]);
    assert!(agent.stop());
}

#[test]
fn a_file_that_comes_back_after_it_was_complete_goes_on_where_it_ended() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).and(&["--poll", "100ms", "--linger", "500ms"]);
    scene.write("a.log", "one\n");
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    scene.rename("a.log", "old");
    scene.write("a.log", "two\n");
    rebuilt(&node, &scene.id("a.log"), &[b"one\n", b"two\n"]);
    agent.says("a.log: it is complete, with 4 bytes");
    let agent = match fastrand::bool() {
        true => agent,
        false => {
            assert!(agent.stop());
            scene.start()
        }
    };
    scene.write("old", "more\n");
    scene.rename("old", "a.log");
    rebuilt(&node, &scene.id("a.log"), &[b"one\nmore\n", b"two\n"]);
    assert!(agent.stop());
}

#[test]
fn every_incarnation_between_two_truncations_is_found_while_there_is_no_room() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).and(&["--window", "16MiB"]);
    scene.write("a.log", lines(0..100));
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[&lines(0..100)]);
    node.be(Mood::Silent);
    let large: Vec<u8> = (0..10_000_000_u32).flat_map(u32::to_le_bytes).collect();
    scene.write("large.log", &large);
    agent.says("reading waits");
    scene.write("a.log", lines(100..200));
    fs::copy(scene.path("a.log"), scene.path("a.log.1")).unwrap();
    fs::write(scene.path("a.log"), lines(300..400)).unwrap();
    agent.says("a.log: it was truncated; the rest is read from");
    agent.says_times("1 of them new", 3);
    // What comes later is found later.
    scene.write("b.log", "later\n");
    agent.says_times("1 of them new", 4);
    scene.write("a.log", lines(400..500));
    fs::copy(scene.path("a.log"), scene.path("a.log.2")).unwrap();
    fs::write(scene.path("a.log"), lines(600..700)).unwrap();
    agent.says_times("a.log: it was truncated; the rest is read from", 2);
    node.be(Mood::Takes);
    rebuilt(&node, &scene.id("b.log"), &[b"later\n"]);
    let wanted = [lines(0..200), lines(300..500), lines(600..700)];
    rebuilt(&node, &scene.id("a.log"), &[&wanted[0], &wanted[1], &wanted[2]]);
    rebuilt(&node, &scene.id("large.log"), &[&large]);
    assert!(agent.stop());
}

#[test]
fn the_next_file_waits_for_the_one_before_it_across_a_restart() {
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).and(&["--rotate-wait", "3s"]);
    let mut log = scene.log("a.log");
    log.write_all(b"one\n").unwrap();
    let agent = scene.start();
    rebuilt(&node, &scene.id("a.log"), &[b"one\n"]);
    scene.rename("a.log", "a.log.1");
    scene.write("a.log", "next\n");
    agent.says_times("1 of them new", 2);
    let id = scene.id("a.log");
    let noted = || fs::read(scene.state().join("log")).unwrap();
    let sessions = || noted().windows(id.len()).filter(|it| *it == id.as_bytes()).count();
    wait_until("both are noted", || sessions() == 2);
    agent.kill();
    let agent = scene.start();
    scene.write("b.log", "other\n");
    rebuilt(&node, &scene.id("b.log"), &[b"other\n"]);
    log.write_all(b"two\n").unwrap();
    rebuilt(&node, &scene.id("a.log"), &[b"one\ntwo\n", b"next\n"]);
    assert!(node.is_in_order(&scene.id("a.log")));
    assert!(agent.stop());
}

#[test]
fn more_files_than_may_be_open_are_closed_and_opened_again() {
    const FILES: usize = 200;
    let node = Node::start(Mood::Takes);
    let scene = Scene::new(&node).after("ulimit -n 90");
    let names = || (0..FILES).map(|number| format!("{number}.log"));
    names().for_each(|name| scene.write(&name, "one\n"));
    let agent = scene.start();
    names().for_each(|name| rebuilt(&node, &scene.id(&name), &[b"one\n"]));
    names().for_each(|name| scene.write(&name, "two\n"));
    names().for_each(|name| rebuilt(&node, &scene.id(&name), &[b"one\ntwo\n"]));
    agent.kill();
    names().for_each(|name| scene.write(&name, "three\n"));
    let agent = scene.start();
    names().for_each(|name| rebuilt(&node, &scene.id(&name), &[b"one\ntwo\nthree\n"]));
    // Those that are not open are found by their new name, and not at all once they are deleted.
    agent.freeze();
    names().take(10).for_each(|name| {
        scene.write(&name, "four\n");
        scene.rename(&name, &format!("{name}.1"));
    });
    names().skip(10).for_each(|name| fs::remove_file(scene.path(&name)).unwrap());
    agent.thaw();
    let four = b"one\ntwo\nthree\nfour\n";
    names().take(10).for_each(|name| rebuilt(&node, &scene.id(&name), &[four]));
    agent.says("it went away while it was not open; what was not read is lost");
    assert!(!agent.words().contains("Too many open files"));
    assert!(agent.stop());
}
