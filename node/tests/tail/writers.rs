//! Files of numbered lines that are written and rotated, each in its own way.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::process::{eventually, eventually_within};
use crate::tail::directory::Directory;
use crate::{CATCHES_UP, pause};

/// How far the fast one may be ahead of what is rebuilt: it would fill the disk otherwise.
const AHEAD: u64 = 8 << 20;
/// Milliseconds until the next rotation.
const ROTATES: std::ops::Range<u64> = 300..2_500;
/// Bytes in a line of a burst.
const LINE: std::ops::Range<usize> = 1..1 << 20;
/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As fast as `yes`.
    Fast,
    /// One now and then.
    Slow,
    /// Several at once, of up to a mebibyte of any bytes.
    Bursts,
}

/// How a file is rotated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// Renamed; the writer goes on with a new one.
    Rename,
    /// Copied and truncated, while the writer pauses.
    Copy,
    /// Deleted, once the cluster has it: what nobody has read is gone otherwise.
    Delete,
}

/// Where a log is, and how the cluster calls it.
pub(crate) struct FilePlace {
    pub(crate) id: String,
    pub(crate) log: PathBuf,
    /// For what was written, to compare with.
    pub(crate) sources: PathBuf,
}

/// Somebody who writes a log.
pub(crate) struct Writer {
    pub(crate) name: &'static str,
    pub(crate) manner: Manner,
    pub(crate) rotation: Rotation,
    pub(crate) place: FilePlace,
    pub(crate) directory: Directory,
}

/// What was written.
pub(crate) struct Written {
    pub(crate) id: String,
    /// What each incarnation has.
    pub(crate) sources: Vec<PathBuf>,
    /// The number of the last line.
    pub(crate) lines: u64,
}

impl Writer {
    /// Writes and rotates until then.
    pub(crate) fn write(self, until: Instant) -> Written {
        let (mut sources, mut lines, mut length, mut total) = (vec![self.source(0)], 0, 0, 0);
        let (mut log, mut source) = (append(&self.place.log), append(&sources[0]));
        let (mut rotates, mut allowed) = (soon(), AHEAD);
        while Instant::now() < until {
            let bytes = self.next(&mut lines);
            log.write_all(&bytes).unwrap();
            source.write_all(&bytes).unwrap();
            (length, total) = (length + bytes.len() as u64, total + bytes.len() as u64);
            self.wait(total, &mut allowed);
            if Instant::now() < rotates {
                continue;
            }
            // What comes and goes while no agent lives nobody ever hears of.
            eventually_within(CATCHES_UP, "an agent that follows the file", || {
                let files = self.directory.files(&self.place.id)?;
                let is_whole = files.last()?.bytes == length || self.rotation != Rotation::Delete;
                (files.len() == sources.len() && is_whole).then_some(())
            });
            log = self.rotate(sources.len());
            sources.push(self.source(sources.len()));
            source = append(sources.last().unwrap());
            (length, rotates) = (0, soon());
        }
        sources.retain(|source| fs::metadata(source).unwrap().len() > 0);
        Written { id: self.place.id, sources, lines }
    }

    /// The next lines.
    fn next(&self, lines: &mut u64) -> Vec<u8> {
        let mut number = || {
            *lines += 1;
            *lines
        };
        match self.manner {
            Manner::Fast => {
                (0..10_000).flat_map(|_| format!("{}\n", number()).into_bytes()).collect()
            }
            Manner::Slow => format!("line {}\n", number()).into_bytes(),
            Manner::Bursts => {
                let line = |_| {
                    let any =
                        std::iter::repeat_with(|| fastrand::u8(..)).take(fastrand::usize(LINE));
                    let any = any.map(|byte| if byte == b'\n' { 0 } else { byte });
                    let head = format!("{} ", number()).into_bytes();
                    head.into_iter().chain(any).chain([b'\n']).collect::<Vec<u8>>()
                };
                (0..fastrand::usize(1..6)).flat_map(line).collect()
            }
        }
    }

    /// Waits until it is time for more, when so much was written, and so much is allowed to be.
    fn wait(&self, total: u64, allowed: &mut u64) {
        match self.manner {
            Manner::Fast if total <= *allowed => {}
            Manner::Fast => eventually_within(CATCHES_UP, "the cluster to follow", || {
                let files = self.directory.files(&self.place.id)?;
                let rebuilt: u64 = files.iter().map(|file| file.bytes).sum();
                *allowed = rebuilt + AHEAD;
                (total <= *allowed).then_some(())
            }),
            Manner::Slow => pause(0..31),
            Manner::Bursts => pause(0..601),
        }
    }

    /// Rotates for the so-manyth time, and opens what comes next.
    fn rotate(&self, times: usize) -> File {
        let old = self.place.log.with_extension(format!("log.{times}"));
        match self.rotation {
            Rotation::Rename => fs::rename(&self.place.log, old).unwrap(),
            Rotation::Copy => {
                fs::copy(&self.place.log, old).unwrap();
                File::create(&self.place.log).unwrap();
            }
            Rotation::Delete => fs::remove_file(&self.place.log).unwrap(),
        }
        append(&self.place.log)
    }

    fn source(&self, number: usize) -> PathBuf {
        self.place.sources.join(format!("{}.{number}", self.name))
    }
}

impl Written {
    /// Waits until the cluster has all of it, and compares each incarnation with its file.
    pub(crate) fn must_be_rebuilt(&self, directory: &Directory) {
        let id = &self.id;
        let lengths =
            Vec::from_iter(self.sources.iter().map(|source| fs::metadata(source).unwrap().len()));
        let mut seen = Vec::new();
        let is_there = || {
            let files = directory.files(id)?;
            seen = files.iter().map(|file| (file.bytes, file.waits_for)).collect();
            files.iter().map(|file| file.bytes).eq(lengths.iter().copied()).then_some(files)
        };
        let files = eventually_within(CATCHES_UP, &format!("all of {id}, {lengths:?}"), is_there);
        let mut lines = 0;
        for (source, file) in self.sources.iter().zip(files) {
            let rebuilt = eventually("a whole file", || directory.read(id, file.session));
            assert!(rebuilt == fs::read(source).unwrap(), "{id}.{} is another", file.session);
            lines += rebuilt.iter().filter(|&&byte| byte == b'\n').count() as u64;
        }
        assert_eq!(lines, self.lines, "lines of {id}");
    }
}

fn append(path: &PathBuf) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(fastrand::u64(ROTATES))
}
