//! Decode, admit, append, acknowledge: the hot path.

pub mod admission; // one budget in bytes for everything that is on its way
pub mod scan; // protobuf in, records out, nothing materialised
pub mod throttle; // how fast it is worked off, where there is a limit
pub mod wire; // protobuf's wire format
pub mod work; // what may take long, and whom it must not hold up

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::aggregation::definition::{Definition, Kind, Unique};
use crate::aggregation::distinct_logs::Packer;
use crate::event::chunk::Chunk;
use crate::event::entry::{EntryWriter, RequestId};
use crate::event::fingerprint::FingerprintKey;
use crate::failpoint::is_to_fail;
use crate::intake::admission::{Admission, Busy, Closed, Permit, Why};
use crate::intake::scan::{Plan, RejectReason, Rejected, Scan, Scanner};
use crate::intake::throttle::Throttle;
use crate::intake::wire::Undecodable;
use crate::journal::{AppendError, Events, FRAME_BYTES, Journal, frame};

/// Records in one request at most. A record that says nothing takes two bytes, and ten
/// times as much when it is packed.
pub const RECORDS_MAX: u64 = 1 << 22;

/// What a sender sends.
#[derive(Clone, Debug)]
pub struct Request {
    /// A protobuf `ExportLogsServiceRequest`.
    pub body: Bytes,
    /// What the sender calls it, if it does: of all requests of one name, one is counted.
    pub id: Option<RequestId>,
}

impl From<Bytes> for Request {
    fn from(body: Bytes) -> Request {
        Request { body, id: None }
    }
}

/// What became of an accepted request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Records that were refused for good; the others are durable.
    pub rejected: u64,
    /// Why, for the sender.
    pub message: Option<String>,
}

/// Why a request was not accepted; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It cannot be read: sending it again is useless.
    #[error("{0}")]
    Undecodable(#[from] Undecodable),
    /// Packed it would take much more memory than it was charged for.
    #[error("the request has more than {RECORDS_MAX} records: send fewer at a time")]
    TooManyRecords,
    /// There is no room, or the node is draining or has trouble with its disk: come back.
    #[error("{0}")]
    Busy(#[from] Busy),
}

/// What came in so far, for the ledger and the metrics.
#[derive(Debug, Default)]
pub struct Received {
    requests: AtomicU64,
    chunks: AtomicU64,
    unusable: AtomicU64,
    accepted: AtomicU64,
    rejected: Mutex<BTreeMap<String, u64>>,
}

impl Received {
    /// Requests that were accepted, in this life of the process.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Chunks of files that were accepted, in this life of the process.
    pub fn chunks(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }

    /// Requests that could not be read, were misnamed or had too many records, in this life of
    /// the process.
    pub fn unusable(&self) -> u64 {
        self.unusable.load(Ordering::Relaxed)
    }

    /// Counts a request that can never be taken.
    pub fn refuse(&self) {
        self.unusable.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that were acknowledged in this life of the process.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Records that were refused, by reason.
    pub fn rejected(&self) -> BTreeMap<String, u64> {
        self.lock().clone()
    }

    /// Starts with what an earlier life refused.
    pub fn resume(&self, rejected: BTreeMap<String, u64>) {
        *self.lock() = rejected;
    }

    fn reject(&self, rejected: &Rejected) {
        if rejected.total() == 0 {
            return;
        }
        let mut by_reason = self.lock();
        for reason in RejectReason::ALL {
            let records = rejected.count(reason);
            if records > 0 {
                *by_reason.entry(reason.name().to_owned()).or_default() += records;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes requests from the sources; cheap to clone.
#[derive(Clone)]
pub struct Intake {
    shared: Arc<Shared>,
}

struct Shared {
    admission: Admission,
    throttle: Throttle,
    received: Received,
    /// What requests become, while there is a journal to append them to.
    open: RwLock<Option<Arc<Opened>>>,
}

/// Where requests go: an open journal, and what its aggregations want to know.
struct Opened {
    journal: Journal,
    packing: Packing,
    /// The requests on their way.
    uses: TaskTracker,
    /// One per request that is being packed at the same time; kept for the next.
    idle: Mutex<Vec<Worker>>,
}

impl Intake {
    /// An intake that is closed until [`Intake::open`].
    pub fn new(admission: Admission) -> Intake {
        let received = Received::default();
        let (throttle, open) = (Throttle::new(), RwLock::new(None));
        let shared = Shared { admission, throttle, received, open };
        Intake { shared: Arc::new(shared) }
    }

    /// The budget that sources charge before they buffer.
    pub fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    /// How fast requests are worked off.
    pub fn throttle(&self) -> &Throttle {
        &self.shared.throttle
    }

    /// What came in so far.
    pub fn received(&self) -> &Received {
        &self.shared.received
    }

    /// Accepts requests from now on, into `journal`. Those that are packed otherwise are still
    /// on their way until what this returns is over.
    pub fn open(&self, journal: Journal, packing: Packing) -> Earlier {
        let (uses, idle) = (TaskTracker::new(), Mutex::default());
        let opened = Opened { journal, packing, uses, idle };
        let earlier = self.swap(Some(Arc::new(opened)));
        self.shared.admission.reopen();
        Earlier(earlier.map_or_else(closed, |earlier| earlier.uses.clone()))
    }

    /// Refuses requests from now on; those in flight are still finished.
    pub fn close(&self, why: Closed) {
        self.shared.admission.close(why);
        self.swap(None);
    }

    fn swap(&self, opened: Option<Arc<Opened>>) -> Option<Arc<Opened>> {
        let mut open = self.shared.open.write().unwrap_or_else(PoisonError::into_inner);
        let earlier = std::mem::replace(&mut *open, opened);
        earlier.inspect(|opened| {
            opened.uses.close();
        })
    }

    /// Where a request goes, which counts as on its way there while the token lives.
    fn enter(&self) -> Option<(Arc<Opened>, TaskTrackerToken)> {
        // It is counted before the lock is given back, and so before anybody waits for it.
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        let opened = Arc::clone(open.as_ref()?);
        let counted = opened.uses.token();
        Some((opened, counted))
    }

    /// The answer for a request that is not taken: the reason for which none are, or this one.
    fn refuse(&self, why: Closed) -> Busy {
        let admission = &self.shared.admission;
        admission.refuse(Why::Closed(admission.closed().unwrap_or(why)))
    }

    /// Accepts a request, whole or not at all.
    ///
    /// `Ok` means durable: the sender may forget the request, but for the records that
    /// the answer names as rejected.
    ///
    /// # Errors
    /// When the request cannot be read, or cannot be taken at the moment.
    pub async fn export(
        &self,
        request: impl Into<Request>,
        permit: Permit,
    ) -> Result<Exported, IntakeError> {
        let Request { body, id } = request.into();
        // While it waits it is in nobody's way but in the queue.
        self.shared.throttle.pass(body.len()).await;
        let (opened, _counted) = self.enter().ok_or_else(|| self.refuse(Closed::StoreTrouble))?;
        if opened.packing.wants.is_empty() {
            return Err(self.refuse(Closed::CountsNoRecords).into());
        }
        let received = &self.shared.received;
        let packed = work::work(body.len(), || opened.pack(&body, id));
        let (entry, Scan { accepted, rejected }) = packed.inspect_err(|_| received.refuse())?;
        drop(body);
        if accepted > 0 {
            self.append(&opened, entry, Events::of_records(accepted), permit).await?;
        }
        received.requests.fetch_add(1, Ordering::Relaxed);
        received.accepted.fetch_add(accepted, Ordering::Relaxed);
        received.reject(&rejected);
        let (rejected, message) = (rejected.total(), rejected.message().map(str::to_owned));
        Ok(Exported { rejected, message })
    }

    /// Accepts a chunk of a file, whole or not at all.
    ///
    /// `Ok` means durable: the sender may forget the chunk.
    ///
    /// # Errors
    /// When it cannot be taken at the moment.
    pub async fn collect(&self, chunk: Chunk, permit: Permit) -> Result<(), Busy> {
        self.shared.throttle.pass(chunk.payload.len()).await;
        let (opened, _counted) = self.enter().ok_or_else(|| self.refuse(Closed::StoreTrouble))?;
        let Packing { key, collectors, .. } = &opened.packing;
        if collectors.is_empty() {
            return Err(self.refuse(Closed::CollectsNoFiles));
        }
        let packed = work::work(chunk.payload.len(), || pack_chunk(&chunk, *key, collectors));
        drop(chunk);
        self.append(&opened, packed, Events::of_chunks(1), permit).await?;
        self.shared.received.chunks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a packed entry durable, once it is charged for what it has become.
    async fn append(
        &self,
        opened: &Opened,
        entry: Vec<u8>,
        events: Events,
        mut permit: Permit,
    ) -> Result<(), Busy> {
        permit.grow(entry.len().saturating_sub(permit.bytes())).await?;
        permit.shrink_to(entry.len());
        let durable = opened.journal.append(entry, events, Box::new(permit)).await;
        if is_to_fail("planted-acknowledge-anyway") {
            return Ok(());
        }
        durable.map(drop).map_err(|error| match error {
            AppendError::Closed | AppendError::Unknown => self.refuse(Closed::StoreTrouble),
            AppendError::NoSegment => self.refuse(Closed::LacksCopies),
            AppendError::NoLease => self.refuse(Closed::Leaderless),
        })
    }
}

/// One entry, behind room for the journal's frame.
fn pack_chunk(chunk: &Chunk, key: FingerprintKey, collectors: &[u32]) -> Vec<u8> {
    let mut writer = EntryWriter::with_prefix(FRAME_BYTES, None);
    for &aggregation in collectors {
        writer.chunk(aggregation, chunk, key);
    }
    let mut entry = writer.finish(0);
    frame::checksum_content(&mut entry);
    entry
}

/// Requests that were packed for other aggregations.
#[derive(Clone)]
pub struct Earlier(TaskTracker);

impl Earlier {
    /// Whether each of them was appended or given up.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until each of them was appended or given up.
    pub async fn over(self) {
        self.0.wait().await;
    }
}

/// Nothing is on its way, and nothing will be.
fn closed() -> TaskTracker {
    let uses = TaskTracker::new();
    uses.close();
    uses
}

impl Opened {
    fn pack(&self, request: &[u8], id: Option<RequestId>) -> Result<(Vec<u8>, Scan), IntakeError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worker = idle().pop().unwrap_or_else(|| Worker::new(&self.packing));
        let packed = worker.pack(&self.packing, request, id);
        idle().push(worker);
        packed
    }
}

/// What the enabled aggregations want of each request.
pub struct Packing {
    key: FingerprintKey,
    plan: Plan,
    wants: Vec<Want>,
    /// The numbers of those that want chunks.
    collectors: Vec<u32>,
}

/// What one aggregation wants of each record.
#[derive(Clone, Copy)]
struct Want {
    aggregation: u32,
    unique: Unique,
}

impl Packing {
    /// What `aggregations`, by number, want.
    pub fn new<'a>(
        key: FingerprintKey,
        aggregations: impl Iterator<Item = (u32, &'a Definition)>,
    ) -> Packing {
        let mut plan = Plan { attributes: Vec::new(), body: false, record: false };
        let (mut wants, mut collectors) = (Vec::new(), Vec::new());
        for (aggregation, definition) in aggregations {
            let definition = match &definition.kind {
                Kind::DistinctLogs(definition) => definition,
                Kind::LogFiles(_) => {
                    collectors.push(aggregation);
                    continue;
                }
            };
            let unique = definition.unique;
            plan.attributes.push(definition.attribute.as_bytes().into());
            plan.body |= unique == Unique::Body;
            plan.record |= unique == Unique::Record;
            wants.push(Want { aggregation, unique });
        }
        Packing { key, plan, wants, collectors }
    }
}

/// Scratch that is used again from request to request.
pub struct Worker {
    scanner: Scanner,
    packers: Vec<Packer>,
}

impl Worker {
    /// A worker for `packing`.
    pub fn new(packing: &Packing) -> Worker {
        let packers = packing.wants.iter().map(|_| Packer::new(packing.key)).collect();
        Worker { scanner: Scanner::new(packing.key), packers }
    }

    /// Packs a request into one entry, behind room for the journal's frame.
    ///
    /// # Errors
    /// When the request cannot be read, or has too many records.
    pub fn pack(
        &mut self,
        packing: &Packing,
        request: &[u8],
        id: Option<RequestId>,
    ) -> Result<(Vec<u8>, Scan), IntakeError> {
        let packers = &mut self.packers;
        packers.iter_mut().for_each(Packer::clear);
        let mut records = 0;
        let scan = self.scanner.scan(&packing.plan, request, &mut |record| {
            records += 1;
            if records > RECORDS_MAX {
                return;
            }
            for ((packer, want), value) in packers.iter_mut().zip(&packing.wants).zip(record.values)
            {
                let fingerprint = match want.unique {
                    Unique::Body => Some(record.body),
                    Unique::Record => Some(record.record),
                    Unique::None => None,
                };
                packer.add(value, fingerprint);
            }
        })?;
        if records > RECORDS_MAX {
            return Err(IntakeError::TooManyRecords);
        }
        let mut writer = EntryWriter::with_prefix(FRAME_BYTES, id);
        for (packer, want) in packers.iter_mut().zip(&packing.wants) {
            packer.finish(&mut writer, want.aggregation);
        }
        let mut entry = writer.finish(scan.accepted as u32);
        frame::checksum_content(&mut entry);
        Ok((entry, scan))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::chunk::Sequence;
    use crate::event::entry::{Entry, Section};
    use crate::event::time::{Clock, UnixNanos};
    use crate::journal::{Opening, Replay};
    use crate::store::{Disk, Store};

    fn varint(mut number: usize, out: &mut Vec<u8>) {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }

    /// A request of records that say nothing, two bytes each.
    fn request(records: u64) -> Vec<u8> {
        let log_records = [0x12, 0].repeat(records as usize);
        let (mut scope_logs, mut resource_logs) = (vec![0x12], vec![0x0a]);
        varint(log_records.len(), &mut scope_logs);
        scope_logs.extend(log_records);
        varint(scope_logs.len(), &mut resource_logs);
        resource_logs.extend(scope_logs);
        resource_logs
    }

    const COUNT: &str = r#"{"name":"a","type":"DistinctLogs","distinctLogs":{"attribute":"a"}}"#;
    const FILES: &str = r#"{"name":"a","type":"LogFiles","logFiles":{}}"#;

    /// For one aggregation, with the number 4.
    fn packing(definition: &str) -> Packing {
        let definition = serde_json::from_str(definition).unwrap();
        Packing::new(FingerprintKey([7; 16]), [(4, &definition)].into_iter())
    }

    /// An entry that was packed as before may be stamped when the new packing is in use.
    #[tokio::test]
    async fn requests_that_were_packed_otherwise_are_over_when_they_are_durable() {
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let (floor, lease) = (UnixNanos(0), UnixNanos(u64::MAX));
        let opening = Opening { segment: 1, floor, lease, mirrors: Vec::new() };
        let (journal, writer) =
            Journal::new(store, &Replay::default(), Clock::system(), Box::new(|_| ()));
        let writer = tokio::spawn(writer.run_as_task());
        journal.open(opening).await.unwrap();
        let intake = Intake::new(Admission::new(1 << 20));
        let open = || intake.open(journal.clone(), packing(COUNT));
        assert!(open().is_over(), "nothing was open before");
        let permit = intake.admission().admit(9).await.unwrap();
        let mut on_its_way = std::pin::pin!(intake.export(Bytes::from(request(1)), permit));
        assert!(futures::poll!(on_its_way.as_mut()).is_pending());
        let earlier = open();
        assert!(!earlier.is_over());
        on_its_way.await.unwrap();
        earlier.over().await;
        journal.close();
        writer.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_another_copy_of_the_journal_is_told_to_come_back_soon() {
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let (journal, writer) =
            Journal::new(store, &Replay::default(), Clock::system(), Box::new(|_| ()));
        let writer = tokio::spawn(writer.run_as_task());
        let intake = Intake::new(Admission::new(1 << 20));
        intake.open(journal.clone(), packing(COUNT));
        let permit = intake.admission().admit(9).await.unwrap();
        let mut waiting = std::pin::pin!(intake.export(Bytes::from(request(1)), permit));
        // Whoever comes after what waits was refused waits for the next time.
        let refused = loop {
            tokio::select! {
                refused = waiting.as_mut() => break refused,
                () = tokio::task::yield_now() => journal.refuse_waiting().unwrap(),
            }
        };
        let Err(IntakeError::Busy(busy)) = refused else { panic!("it was not refused") };
        assert_eq!(busy.why, Why::Closed(Closed::LacksCopies));
        assert!(busy.retry_after <= Duration::from_secs(2), "{:?}", busy.retry_after);
        journal.close();
        writer.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_no_aggregation_wants_is_not_taken() {
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let (journal, _writer) =
            Journal::new(store, &Replay::default(), Clock::system(), Box::new(|_| ()));
        let intake = Intake::new(Admission::new(1 << 20));
        intake.open(journal.clone(), packing(FILES));
        let permit = intake.admission().admit(9).await.unwrap();
        let refused = intake.export(Bytes::from(request(1)), permit).await.unwrap_err();
        let IntakeError::Busy(busy) = refused else { panic!("{refused}") };
        assert_eq!(busy.why, Why::Closed(Closed::CountsNoRecords));
        intake.open(journal, packing(COUNT));
        let permit = intake.admission().admit(9).await.unwrap();
        let (id, session) = ("a".to_owned().try_into().unwrap(), 1);
        let chunk = Chunk { id, session, seq: Sequence::FIRST, payload: Bytes::new() };
        let refused = intake.collect(chunk, permit).await.unwrap_err();
        assert_eq!(refused.why, Why::Closed(Closed::CollectsNoFiles));
    }

    #[test]
    fn a_chunk_is_packed_for_whoever_rebuilds_files() {
        let (id, seq) = ("a".to_owned().try_into().unwrap(), Sequence::FIRST);
        let chunk = Chunk { id, session: 7, seq, payload: Bytes::from_static(b"xyz") };
        let packed = pack_chunk(&chunk, FingerprintKey([7; 16]), &[4]);
        let entry = Entry::parse(&packed[FRAME_BYTES..]).unwrap();
        assert_eq!((entry.records(), entry.request()), (0, None));
        let (number, Section::LogFiles(found)) = entry.sections().next().unwrap().unwrap() else {
            panic!("no chunk");
        };
        assert_eq!((number, found.session, found.payload), (4, 7, &b"xyz"[..]));
    }

    #[test]
    fn a_request_has_as_many_records_as_allowed_and_not_one_more() {
        let packing = Packing::new(FingerprintKey([7; 16]), std::iter::empty());
        let mut worker = Worker::new(&packing);
        let (_, scan) = worker.pack(&packing, &request(RECORDS_MAX), None).unwrap();
        assert_eq!(scan.accepted, RECORDS_MAX);
        let refused = worker.pack(&packing, &request(RECORDS_MAX + 1), None);
        assert!(matches!(refused, Err(IntakeError::TooManyRecords)));
    }
}
