//! What people are told as it happens.

use kube::Resource as _;
use kube::runtime::events::{Event, EventType};
use tracing::debug;

use crate::context::Context;
use crate::decide::conditions::{Kind, Told};
use crate::nodes::Change;
use crate::resource::LogAggregator;

/// The most characters of an event's note, which may have 1,024 bytes.
const NOTE_CHARS_MAX: usize = 256;

/// Something that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened<'a> {
    /// The cluster lets a member go.
    Changed(Change),
    /// A volume is deleted that holds nothing.
    ClaimDeleted(&'a str),
    /// A pod is deleted with its volume.
    Displaced(&'a str),
    /// A pod is deleted to come back as its new version.
    Renewed(&'a str),
    /// The StatefulSet is built anew, for larger volumes.
    StatefulSetReplaced,
}

impl Happened<'_> {
    /// What is told of it.
    pub(super) fn event(self) -> Event {
        let (reason, action, note) = match self {
            Happened::Changed(Change::Drain(member)) => {
                ("Draining", "Drain", format!("node {member} hands over what it has"))
            }
            Happened::Changed(Change::Forget(member)) => {
                ("Forgotten", "Forget", format!("node {member} was given up"))
            }
            Happened::ClaimDeleted(name) => {
                ("VolumeDeleted", "DeleteClaim", format!("{name} holds nothing any more"))
            }
            Happened::Displaced(name) => {
                ("NodeReplaced", "DeletePod", format!("{name} begins anew, with another volume"))
            }
            Happened::Renewed(name) => {
                ("Rolling", "DeletePod", format!("{name} is replaced by its new version"))
            }
            Happened::StatefulSetReplaced => {
                let note = "the StatefulSet is replaced without its pods, for larger volumes";
                ("VolumesGrow", "ReplaceStatefulSet", note.to_owned())
            }
        };
        event(EventType::Normal, reason, action, &note)
    }
}

/// What is told of conditions that have changed: `before` are the reasons that they had.
pub(super) fn of_changes(before: &[(String, bool, String)], now: &[Told; 4]) -> Vec<Event> {
    let is_news = |told: &&Told| {
        let known = before.iter().find(|(kind, _, _)| kind == told.kind.as_str());
        let known = known.map(|(_, held, reason)| (*held, reason.as_str()));
        known != Some((told.holds, told.reason))
    };
    let is_told = |told: &&Told| match told.kind {
        Kind::Ready | Kind::Progressing | Kind::Degraded | Kind::ScalingBlocked => told.holds,
    };
    let type_of = |told: &Told| match told.kind {
        Kind::Ready | Kind::Progressing => EventType::Normal,
        Kind::Degraded | Kind::ScalingBlocked => EventType::Warning,
    };
    let news = now.iter().filter(is_told).filter(is_news);
    news.map(|told| event(type_of(told), told.reason, told.kind.as_str(), &told.message)).collect()
}

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    let note = Some(note.chars().take(NOTE_CHARS_MAX).collect());
    Event { type_, reason: reason.to_owned(), note, action: action.to_owned(), secondary: None }
}

/// Tells an event. Nothing depends on it, so nothing is done when it cannot be told.
pub(super) async fn tell(aggregator: &LogAggregator, context: &Context, event: Event) {
    let told = context.recorder.publish(&event, &aggregator.object_ref(&())).await;
    if let Err(error) = told {
        debug!(%error, reason = event.reason, "an event could not be told");
    }
}
