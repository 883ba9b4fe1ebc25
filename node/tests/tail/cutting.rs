//! Connections to a node that do not last.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::tail::directory::Directory;

/// Bytes that go to the node before the connection is cut.
const LASTS: std::ops::Range<usize> = 1..8 << 20;

/// Stands before a node, wherever that is in this life, until the process ends.
pub(crate) struct Cutter {
    address: SocketAddr,
    cuts: Arc<AtomicUsize>,
}

impl Cutter {
    /// Begins to listen.
    pub(crate) fn start(directory: Directory, node: usize) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, cuts) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&cuts);
        thread::spawn(move || {
            for sender in listener.incoming().map_while(Result::ok) {
                let place = directory.find(node);
                // Who is sent away where no node is comes again.
                let Some(node) = place.and_then(|place| TcpStream::connect(place.chunks).ok())
                else {
                    continue;
                };
                let (from, to) = (sender.try_clone().unwrap(), node.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                thread::spawn(move || {
                    if forward(&from, &to, fastrand::usize(LASTS)) {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                });
                thread::spawn(move || forward(&node, &sender, usize::MAX));
            }
        });
        Cutter { address, cuts }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections it has cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

/// Forwards so many bytes, if the connection lasts, and ends both. Returns whether it was cut.
fn forward(mut from: &TcpStream, mut to: &TcpStream, mut left: usize) -> bool {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let taken = length.min(left);
        if to.write_all(&buffer[..taken]).is_err() {
            break;
        }
        left -= taken;
        if left == 0 {
            break;
        }
    }
    for end in [from, to] {
        // It may have ended already.
        let _ = end.shutdown(Shutdown::Both);
    }
    left == 0
}
