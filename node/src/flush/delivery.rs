//! The thread that hands out what a cut has closed:
//! claim -> deliver -> complete -> trim, one window after the other.

use std::path::Path;
use std::sync::mpsc;

use sheaf_proto::statistics::{Other, ValueCount, WindowCounts, WindowSpan};
use tracing::{error, info};
use uuid::Uuid;

use crate::aggregation::definition::Kind;
use crate::aggregation::distinct_logs::{Closed, Counts, OpenWindow};
use crate::checkpoint::ledger::Balance;
use crate::checkpoint::{Carry, Checkpoints, Claim, Digest, SlotClaim};
use crate::event::time::Window;
use crate::event::value;
use crate::failpoint::may_die;
use crate::flush::{Aggregation, Begin, FlushError};
use crate::journal::Cut;
use crate::sink::{DeliveryKey, Sink, SinkError};

/// What one cut has closed.
pub struct Flush {
    /// The cut.
    pub cut: Cut,
    /// The windows.
    pub closing: Vec<Closing>,
    /// What is kept of windows that stay open.
    pub carries: Vec<Carry>,
    /// Where the journal may begin once all of this is recorded.
    pub begin: Begin,
}

/// A window on its way out.
pub struct Closing {
    /// Its aggregation.
    pub aggregation: Aggregation,
    /// The time that it covers.
    pub window: Window,
    /// What was folded into it.
    pub state: OpenWindow,
    /// Records in the aggregation's windows that stay open.
    pub pending: u64,
}

/// What a flush did, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct FlushFigures {
    /// Distinct records in the window.
    pub distinct: u64,
    /// How often a part of the window was moved to disk.
    pub spills: u64,
    /// Whether the aggregation's account adds up.
    pub balanced: bool,
}

/// Told about every flush; must not block.
pub type Observer = Box<dyn Fn(FlushFigures) + Send>;

/// Hands windows out.
pub struct Delivery {
    /// The cluster, for the deliveries' keys.
    pub cluster: Uuid,
    /// Where claims and completions are recorded.
    pub checkpoints: Checkpoints,
    /// Where windows go.
    pub sink: Box<dyn Sink>,
    /// How many values a window's list has at most.
    pub values_max: usize,
    /// Told about every flush.
    pub observer: Observer,
}

impl Delivery {
    /// Hands out what is flushed, until the sender of `flushes` is gone.
    ///
    /// # Errors
    /// When a window cannot be handed out; it will be after the next start.
    pub fn run(mut self, flushes: mpsc::Receiver<Flush>) -> Result<(), FlushError> {
        flushes.into_iter().try_for_each(|flush| self.flush(flush))
    }

    fn flush(&mut self, flush: Flush) -> Result<(), FlushError> {
        for closing in flush.closing {
            self.hand_out(&flush.cut, closing)?;
        }
        if !flush.carries.is_empty() {
            self.checkpoints.carry(&flush.carries)?;
            info!(windows = flush.carries.len(), "open windows carried, to trim the journal");
        }
        let Begin { position, records } = flush.begin;
        Ok(self.checkpoints.trim(&flush.cut, position, records)?)
    }

    fn hand_out(&mut self, cut: &Cut, closing: Closing) -> Result<(), FlushError> {
        let Closing { aggregation, window, state, pending } = closing;
        let spills = state.spills();
        let kept = state.kept_file().map(Path::to_owned);
        let closed = state.close(self.values_max)?;
        let claim = claim(&aggregation, window, cut, &closed);
        let counts = statistics(&aggregation, window, closed.counts, 1, true);

        self.checkpoints.claim(&claim)?;
        let (cluster, start) = (self.cluster, window.start);
        let key = DeliveryKey { cluster, aggregation: aggregation.number, start, revision: 1 };
        self.sink.deliver(&key, &counts)?;
        may_die("flush-after-deliver");
        let progress = self.checkpoints.complete(&claim, &line(window, &counts)?)?;

        if let Some(file) = kept {
            // What is left is removed at the next start.
            let _ = std::fs::remove_file(file);
        }

        let balance = Balance::at(&aggregation.fact, cut.records, &progress, pending);
        let (distinct, balanced) = (counts.distinct, balance.holds());
        let name = &counts.aggregation;
        if !balanced {
            error!(aggregation = name, %window, ?balance, "the ledger does not balance");
        }
        info!(aggregation = name, %window, records = counts.records, distinct, "window printed");
        (self.observer)(FlushFigures { distinct, spills, balanced });
        Ok(())
    }
}

fn claim(aggregation: &Aggregation, window: Window, cut: &Cut, closed: &Closed) -> Claim {
    let slots = closed.slots.iter().map(|slot| SlotClaim {
        slot: slot.slot,
        distinct: slot.distinct,
        digest: Digest(slot.digest),
    });
    Claim {
        aggregation: aggregation.number,
        start: window.start.0,
        end: window.end.0,
        cut: cut.number,
        records: closed.counts.records,
        distinct: closed.counts.distinct,
        digest: Digest(closed.digest()),
        slots: slots.collect(),
    }
}

/// The window as the API repeats it.
fn line(window: Window, counts: &WindowCounts) -> Result<Vec<u8>, SinkError> {
    let window = window.start;
    serde_json::to_vec(counts).map_err(|source| SinkError::Format { window, source })
}

/// A window's counts as statistics carry them.
pub fn statistics(
    aggregation: &Aggregation,
    window: Window,
    counts: Counts,
    revision: u32,
    complete: bool,
) -> WindowCounts {
    let Kind::DistinctLogs(definition) = &aggregation.definition.kind;
    let values = counts.counts.into_iter().map(|(canonical, count)| {
        // The canonical bytes are ours; bytes that cannot be read are shown, not hidden.
        let (value, kind) = value::to_json(&canonical).unwrap_or_else(|error| {
            (serde_json::Value::String(error.to_string()), Some("malformed"))
        });
        ValueCount { value, kind: kind.map(str::to_owned), count }
    });
    WindowCounts {
        aggregation: aggregation.fact.name.clone(),
        kind: "DistinctLogs".to_owned(),
        attribute: definition.attribute.clone(),
        window: WindowSpan { start: window.start.timestamp(), end: window.end.timestamp() },
        complete,
        revision,
        records: counts.records,
        distinct: counts.distinct,
        upper_bound: counts.upper_bound,
        unknown: counts.unknown,
        counts: values.collect(),
        other: Other { values: counts.other_values, count: counts.other_count },
    }
}
