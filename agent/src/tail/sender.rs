//! Sends chunks to one node at a time, until it has answered them.

mod stream; // chunks and receipts over gRPC

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use sheaf_proto::chunks::Receipt;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until, timeout_at},
};

use self::stream::{Broken, Stream};
use super::{
    mailbox::{Mailbox, Verdict},
    parcel::Parcel,
    report::tell,
    session::Key,
};
use crate::{backoff::Backoff, endpoint::Authority};

/// How long a node may say nothing to chunks that it has. Longer than it waits for room.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may take to say why it takes no more.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Trouble that lasts is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Whom chunks are sent to.
#[derive(Debug)]
pub(crate) struct Sender {
    nodes: VecDeque<Node>,
    parcels: UnboundedReceiver<Parcel>,
    mailbox: Mailbox,
    /// What is not answered, in order.
    queue: VecDeque<Parcel>,
    /// The chunk of a session that a node did not take: until it comes again none of the session
    /// is sent.
    held: HashMap<Key, u64>,
    /// Until when nodes ask for nothing more.
    throttled: Option<Instant>,
    trouble: Option<Trouble>,
}

/// A node, and until when it is left alone.
#[derive(Debug, Clone)]
struct Node {
    address: Authority,
    until: Instant,
}

/// Since when nothing goes, and when that was told last.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    told: Instant,
}

/// How far a stream has got.
#[derive(Debug)]
struct Progress {
    /// How many of the queue were sent on it.
    sent: usize,
    /// How many of the stream's chunks were answered.
    answered: u64,
    refused: BTreeMap<u64, String>,
    /// Since when the node owes an answer.
    heard: Instant,
}

impl Sender {
    /// Sends what comes to these nodes, at least one.
    pub(crate) fn new(
        nodes: impl IntoIterator<Item = Authority>,
        parcels: UnboundedReceiver<Parcel>,
        mailbox: Mailbox,
    ) -> Sender {
        let until = Instant::now();
        Sender {
            nodes: nodes.into_iter().map(|address| Node { address, until }).collect(),
            parcels,
            mailbox,
            queue: VecDeque::new(),
            held: HashMap::new(),
            throttled: None,
            trouble: None,
        }
    }

    /// Sends until there is nothing more to come. What a node does not take or answer goes to the
    /// next, for as long as it takes.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new();
        while self.has_work().await {
            let Some(node) = self.next_node().await else { return };
            let mut progress = Progress::new();
            let Err(broken) = self.send_to(&node, &mut progress).await else { return };
            if progress.answered > 0 {
                backoff = Backoff::new();
            }
            if let Some(reason) = broken.not_taken()
                && self.put_off_first(&node, progress.sent, reason)
            {
                self.put_off(&node, Duration::ZERO);
                continue;
            }
            let is_aged = progress.answered > 0 && broken.retry_after() == Some(Duration::ZERO);
            if self.queue.is_empty() || is_aged {
                continue;
            }
            self.tell_trouble(&node, &broken);
            let least = backoff.wait();
            self.put_off(
                &node,
                broken.retry_after().filter(|wait| !wait.is_zero()).unwrap_or(least),
            );
        }
    }

    /// The first of those that may be asked first, once it may.
    async fn next_node(&self) -> Option<Authority> {
        let node = self.nodes.iter().min_by_key(|node| node.until)?;
        sleep_until(node.until).await;
        Some(node.address.clone())
    }

    /// Leaves a node alone for a while; the others come before it.
    fn put_off(&mut self, address: &Authority, wait: Duration) {
        if let Some(place) = self.nodes.iter().position(|node| node.address == *address)
            && let Some(node) = self.nodes.remove(place)
        {
            self.nodes.push_back(Node { until: Instant::now() + wait, ..node });
        }
    }

    /// Waits until there is something to send; never, if nothing more will come.
    async fn has_work(&mut self) -> bool {
        if self.queue.is_empty() {
            match self.parcels.recv().await {
                Some(parcel) => self.enqueue(parcel),
                None => return false,
            }
        }
        true
    }

    /// Takes a chunk to be sent, unless one before it in its session has to come first.
    fn enqueue(&mut self, parcel: Parcel) {
        match self.held.get(&parcel.key) {
            Some(first) if parcel.seq > *first => {
                self.mailbox.answer([parcel.answered(Verdict::PutOff)]);
            }
            Some(_) => {
                self.held.remove(&parcel.key);
                self.queue.push_back(parcel);
            }
            None => self.queue.push_back(parcel),
        }
    }

    /// Takes the first chunk back, which a node does not take, and all that follows on it in its
    /// session. `false`: the node had none to speak of.
    fn put_off_first(&mut self, node: &Authority, sent: usize, reason: &str) -> bool {
        if sent == 0 {
            return false;
        }
        let Some(first) = self.queue.pop_front() else { return false };
        let key = first.key;
        self.held.insert(key, first.seq);
        let (same, others) = self.queue.drain(..).partition(|parcel| parcel.key == key);
        self.queue = others;
        let same: VecDeque<Parcel> = same;
        let first = first.answered(Verdict::NotTaken(format!("{node}: {reason}")));
        let rest = same.into_iter().map(|parcel| parcel.answered(Verdict::PutOff));
        self.mailbox.answer([first].into_iter().chain(rest));
        true
    }

    /// Sends to a node until nothing more is to come.
    async fn send_to(&mut self, node: &Authority, progress: &mut Progress) -> Result<(), Broken> {
        let mut stream = Stream::open(node).await?;
        loop {
            if let Err(broken) = self.fill(&mut stream, progress) {
                return Err(self.hear_out(stream, progress, broken).await);
            }
            let throttled = self.throttled;
            tokio::select! {
                parcel = self.parcels.recv() => match parcel {
                    Some(parcel) => self.enqueue(parcel),
                    None => return Ok(()),
                },
                receipt = stream.receipt() => {
                    self.take(receipt?, progress)?;
                    self.tell_recovery(node);
                }
                () = sleep_until(throttled.unwrap_or_else(Instant::now)), if throttled.is_some() => {
                    self.throttled = None;
                }
                () = sleep_until(progress.heard + SILENCE), if progress.sent > 0 => {
                    return Err(Broken::Silent(SILENCE));
                }
            }
        }
    }

    /// Takes what a node has said that takes no more: a stream that it ended cannot be sent on,
    /// while why it did is there to be read.
    async fn hear_out(
        &mut self,
        mut stream: Stream,
        progress: &mut Progress,
        broken: Broken,
    ) -> Broken {
        let until = Instant::now() + LAST_WORDS;
        loop {
            match timeout_at(until, stream.receipt()).await {
                Ok(Ok(receipt)) => {
                    if let Err(unreadable) = self.take(receipt, progress) {
                        return unreadable;
                    }
                }
                Ok(Err(ended @ Broken::Ended(_))) => return ended,
                Ok(Err(_)) | Err(_) => return broken,
            }
        }
    }

    /// Sends what has not gone over this stream, unless the nodes ask for a pause.
    fn fill(&mut self, stream: &mut Stream, progress: &mut Progress) -> Result<(), Broken> {
        while let Ok(parcel) = self.parcels.try_recv() {
            self.enqueue(parcel);
        }
        if self.throttled.is_some() {
            return Ok(());
        }
        if progress.sent == 0 {
            progress.heard = Instant::now();
        }
        for parcel in self.queue.iter().skip(progress.sent) {
            stream.send(parcel)?;
            progress.sent += 1;
        }
        stream.flush()
    }

    fn take(&mut self, receipt: Receipt, progress: &mut Progress) -> Result<(), Broken> {
        progress.heard = Instant::now();
        let refusals = receipt.refused.into_iter().map(|refusal| (refusal.number, refusal.reason));
        progress.refused.extend(refusals);
        if receipt.throttle_seconds > 0 {
            let wait = Duration::from_secs(receipt.throttle_seconds.into());
            self.throttled = Some(Instant::now() + wait);
        }
        let count = receipt.answered.saturating_sub(progress.answered);
        let Some(count) = usize::try_from(count).ok().filter(|count| *count <= progress.sent)
        else {
            return Err(Broken::Unreadable("it answers more chunks than there were"));
        };
        let mailbox = self.mailbox.clone();
        mailbox.answer(self.queue.drain(..count).map(|parcel| {
            progress.answered += 1;
            let refused = progress.refused.remove(&progress.answered);
            parcel.answered(refused.map_or(Verdict::Taken, Verdict::Refused))
        }));
        progress.sent -= count;
        Ok(())
    }

    fn tell_trouble(&mut self, node: &Authority, broken: &Broken) {
        let now = Instant::now();
        let trouble = self.trouble.get_or_insert(Trouble { since: now, told: now });
        let is_new = trouble.since == now;
        if is_new || now - trouble.told >= TELL_AGAIN {
            trouble.told = now;
            tell(&format!("{node} takes nothing: {broken}; it is tried again, until it does"));
        }
    }

    fn tell_recovery(&mut self, node: &Authority) {
        if let Some(trouble) = self.trouble.take() {
            let lasted = trouble.since.elapsed().as_secs_f32();
            tell(&format!("{node} takes chunks; for {lasted:.1} s none did"));
        }
    }
}

impl Progress {
    fn new() -> Progress {
        Progress { sent: 0, answered: 0, refused: BTreeMap::new(), heard: Instant::now() }
    }
}
