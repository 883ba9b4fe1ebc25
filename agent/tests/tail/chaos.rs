//! Writers of binary lines that rotate their files, each in its own way.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    time::{Duration, Instant},
};

use super::{
    agent::{Scene, wait_until},
    node::Node,
};

/// How a file is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// Renamed; the writer goes on with a new one.
    Rename,
    /// Copied and truncated, while the writer pauses.
    Copy,
    /// Deleted, once the node has it: what nobody has read is gone otherwise.
    Delete,
}

/// Somebody who writes a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer {
    pub(crate) name: &'static str,
    pub(crate) rotation: Rotation,
    /// Milliseconds between lines, at most.
    pub(crate) slowness: u64,
    /// Bytes in a line, at most.
    pub(crate) line: usize,
}

impl Writer {
    /// Writes and rotates until then. Returns its name and what each incarnation had.
    pub(crate) fn write(
        self,
        scene: &Scene,
        node: &Node,
        until: Instant,
    ) -> (&'static str, Vec<Vec<u8>>) {
        let mut contents = vec![Vec::new()];
        let mut log = self.open(scene);
        while Instant::now() < until {
            let line: Vec<u8> =
                (0..fastrand::usize(1..self.line)).map(|_| fastrand::u8(..)).collect();
            log.write_all(&line).unwrap();
            contents.last_mut().unwrap().extend(line);
            let pause = Instant::now() + Duration::from_millis(fastrand::u64(..=self.slowness));
            wait_until("it is time for a line", || Instant::now() >= pause);
            if fastrand::u8(..) == 0 {
                // What comes and goes while no agent lives nobody ever hears of.
                let id = scene.id(self.name);
                let is_followed = || node.look(&id, |files| files.len() == contents.len());
                wait_until("it is followed", is_followed);
                let last = contents.last().map(Vec::as_slice);
                if self.rotation == Rotation::Delete {
                    let is_there = || node.look(&id, |files| files.last().copied() == last);
                    wait_until("all is there", is_there);
                }
                log = self.rotate(scene, contents.len());
                contents.push(Vec::new());
            }
        }
        contents.retain(|content| !content.is_empty());
        (self.name, contents)
    }

    fn open(self, scene: &Scene) -> File {
        OpenOptions::new().create(true).append(true).open(scene.path(self.name)).unwrap()
    }

    fn rotate(self, scene: &Scene, number: usize) -> File {
        let path = scene.path(self.name);
        let old = scene.path(&format!("{}.{number}", self.name));
        match self.rotation {
            Rotation::Rename => fs::rename(&path, old).unwrap(),
            Rotation::Copy => {
                fs::copy(&path, old).unwrap();
                File::create(&path).unwrap();
            }
            Rotation::Delete => fs::remove_file(&path).unwrap(),
        }
        self.open(scene)
    }
}
