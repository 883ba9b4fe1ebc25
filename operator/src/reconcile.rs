//! One round for one aggregator: look, decide, act, tell.

mod acting; // what is decided, done
mod applying; // objects as they were built, and whose they are
mod dereferencing; // what is seen of an aggregator
mod events; // what people are told as it happens
mod telling; // the status

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::build::{Objects, build};
use crate::context::Context;
use crate::decide::conditions::{self, Halt, Kind, Told};
use crate::decide::fleet::Seen;
use crate::decide::plan::{self, Plan, Wanted, plan};
use crate::resource::LogAggregator;
use crate::validate::{Found, ValidAggregator, validate};
use acting::Outcome;

/// How long a round may take: some requests to the API server, and a node that is slow.
const ROUND: Duration = Duration::from_secs(30);
/// When to look again while something goes on that nobody tells of ..
const SOON: Duration = Duration::from_secs(2);
/// .. while a person or another program has to do something first ..
const LATER: Duration = Duration::from_secs(15);
/// .. and when all is well.
const CALM: Duration = Duration::from_secs(60);
/// How long it may take to tell of a failure.
const TELL_WITHIN: Duration = Duration::from_secs(5);
/// From how many failures in a row on people are told.
const FAILURES_TOLD: u32 = 3;

/// Why a round could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server did not do something.
    #[error("{what}: {source}")]
    Api {
        /// What.
        what: String,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object that was built cannot be written as JSON.
    #[error("write an object as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The system has no random numbers for a token.
    #[error("make up a token: {0}")]
    Random(#[from] getrandom::Error),
    /// An object of this name belongs to somebody else.
    #[error("{kind} {name} exists and belongs to somebody else: delete it, or choose another name")]
    NameConflict {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// It took too long.
    #[error("the round took longer than {ROUND:?}")]
    TooLong,
    /// The operator stops.
    #[error("the operator stops")]
    Stopping,
}

impl ReconcileError {
    fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> ReconcileError {
        let what = what.into();
        move |source| ReconcileError::Api { what, source: Box::new(source) }
    }

    /// Whether somebody else was faster, so that it is tried again at once.
    fn is_conflict(&self) -> bool {
        match self {
            ReconcileError::Api { source, .. } => {
                matches!(&**source, kube::Error::Api(status) if status.is_conflict())
            }
            _ => false,
        }
    }
}

/// Brings an aggregator closer to what it asks for, and says when to look again.
///
/// # Errors
/// When the API server does not do something, or it takes too long. It can be done again.
pub async fn reconcile(
    aggregator: Arc<LogAggregator>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let begun = Instant::now();
    let done = match timeout(ROUND, round(&aggregator, &context)).await {
        Ok(done) => done,
        Err(_) => Err(ReconcileError::TooLong),
    };
    let outcome = if done.is_ok() { "done" } else { "failed" };
    context.metrics.reconciled(outcome, begun.elapsed());
    if done.is_ok() {
        context.memories.succeeded(&aggregator);
    }
    if let Err(error) = &done {
        tell_failure(&aggregator, &context, error).await;
    }
    done
}

/// When to try again what failed.
pub fn after_error(
    aggregator: Arc<LogAggregator>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> Action {
    let (failures, pause) = context.memories.failed(&aggregator);
    if error.is_conflict() && failures < FAILURES_TOLD {
        debug!(%error, aggregator = aggregator.name_any(), "somebody else was faster");
    } else {
        warn!(%error, aggregator = aggregator.name_any(), failures, "a round failed");
    }
    Action::requeue(pause)
}

async fn round(
    aggregator: &Arc<LogAggregator>,
    context: &Context,
) -> Result<Action, ReconcileError> {
    context.stores.listed().await.map_err(|_| ReconcileError::Stopping)?;
    look_after(context);
    if aggregator.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it; there is nothing to finish.
        return Ok(Action::await_change());
    }
    let token = dereferencing::token(aggregator, context).await?; // reads the API
    let mut seen = dereferencing::dereference(aggregator, context).await?; // and asks the nodes
    let mut decided = match decide(aggregator, context, &seen, &token) {
        Ok(decided) => decided,
        Err(halt) => return halted(aggregator, context, &seen, &halt).await,
    };
    let mut outcome = Outcome::default();
    if !decided.valid.paused {
        if applying::is_due(aggregator, context, &decided.objects.stateful_set)? {
            // Its replicas are decided by what it is now, and sent only if it still is.
            dereferencing::read_stateful_set(aggregator, context, &mut seen).await?;
            decided = match decide(aggregator, context, &seen, &token) {
                Ok(decided) => decided,
                Err(halt) => return halted(aggregator, context, &seen, &halt).await,
            };
        }
        applying::apply(aggregator, context, &decided, &seen).await?; // writes the API
        outcome = acting::act(aggregator, context, &decided, &seen).await?; // and has nodes change
    }
    finish(aggregator, context, &decided, &seen, outcome).await
}

/// What is to be, and what is to be done for it.
struct Decided {
    valid: ValidAggregator,
    wanted: Wanted,
    plan: Plan,
    objects: Objects,
}

fn decide(
    aggregator: &LogAggregator,
    context: &Context,
    seen: &Seen,
    token: &str,
) -> Result<Decided, Halt> {
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let found = Found {
        installation: context.installation.clone(),
        // Without one, what was left says how many: an unset number is not the default then.
        replicas: seen.replicas.filter(|replicas| *replicas > 0).map(number),
        founders: plan::founders(seen).map(number),
        token: token.to_owned(),
    };
    let valid = validate(aggregator, found)
        .map_err(|invalid| Halt::Invalid(invalid.reason(), invalid.to_string()))?;
    let wanted = Wanted::of(&valid);
    let has_turn = take_turn(aggregator, context, &wanted, seen);
    let plan = plan(&wanted, seen, has_turn).map_err(Halt::Retained)?;
    let objects = build(&valid, number(plan.replicas));
    Ok(Decided { valid, wanted, plan, objects })
}

/// Whether an aggregator may roll. It wants to while pods are outdated, and until those that it
/// has replaced are ready.
fn take_turn(aggregator: &LogAggregator, context: &Context, wanted: &Wanted, seen: &Seen) -> bool {
    let own = ObjectRef::from_obj(aggregator);
    let is_outdated = seen.pods.iter().any(|pod| pod.outdated);
    let ready = seen.pods.iter().filter(|pod| pod.ready && !pod.terminating).count();
    let is_whole = Some(ready as u64) >= seen.replicas.map(u64::from);
    let wants = is_outdated || (context.turns.has(&own) && !is_whole);
    context.turns.take(&own, wants && !wanted.paused)
}

/// Nothing was done, and a person has to do something first.
async fn halted(
    aggregator: &LogAggregator,
    context: &Context,
    seen: &Seen,
    halt: &Halt,
) -> Result<Action, ReconcileError> {
    let told = conditions::halted(halt);
    telling::tell(aggregator, context, Some(seen), &told).await?;
    Ok(Action::requeue(LATER))
}

/// Tells how it is, and says when to look again.
async fn finish(
    aggregator: &LogAggregator,
    context: &Context,
    decided: &Decided,
    seen: &Seen,
    outcome: Outcome,
) -> Result<Action, ReconcileError> {
    let mut round = decided.plan.round(&decided.wanted, seen);
    let is_silent = outcome.met_silence();
    round.untaken_step = outcome.undrained;
    round.unforgotten = outcome.unforgotten;
    round.refused_growth = outcome.refused_growth;
    let told = conditions::conditions(&round);
    telling::tell(aggregator, context, Some(seen), &told).await?;
    let pause = match context.memories.silent(aggregator, is_silent) {
        Some(longer) => longer,
        None => pause(&told, seen),
    };
    Ok(Action::requeue(pause))
}

/// When to look again: what nodes do among themselves nobody tells of, what pods do is watched.
fn pause(told: &[Told; 4], seen: &Seen) -> Duration {
    let holds = |kind| told.iter().any(|told| told.kind == kind && told.holds);
    let has_nodes = seen.pods.iter().any(|pod| pod.started);
    if holds(Kind::Ready) && !holds(Kind::Progressing) && !holds(Kind::Degraded) {
        CALM
    } else if has_nodes && !holds(Kind::ScalingBlocked) {
        SOON
    } else {
        LATER
    }
}

/// Forgets what was remembered of aggregators that are gone.
fn look_after(context: &Context) {
    let living = context.stores.aggregators.state();
    context.metrics.look_after(context.scope.namespace(), living.len());
    context.memories.forget_all_but(&living);
    context.turns.forget_all_but(&context.scope, &living);
}

/// Tells of a failure that people can do something about, or that does not go away.
async fn tell_failure(aggregator: &LogAggregator, context: &Context, error: &ReconcileError) {
    let failures = context.memories.with(aggregator, |memory| memory.failures);
    let halt = match error {
        ReconcileError::NameConflict { .. } => Halt::NameConflict(error.to_string()),
        _ if failures + 1 >= FAILURES_TOLD => Halt::Failed(error.to_string()),
        _ => return,
    };
    let told = conditions::halted(&halt);
    let telling = telling::tell(aggregator, context, None, &told);
    match timeout(TELL_WITHIN, telling).await {
        Ok(Ok(())) => {}
        // It is told again with the next failure.
        Ok(Err(error)) => debug!(%error, "a failure could not be told"),
        Err(_) => debug!("a failure could not be told in time"),
    }
}

#[cfg(test)]
mod tests;
