//! Tells how a run is going, on stderr: a bar on a terminal, elsewhere a line
//! now and then.

use std::{collections::HashSet, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::report::{Latency, Tally};
use crate::{output, text::grouped};

const BAR_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Troubles differ in few places; more than this many say nothing new.
const TROUBLES_MAX: usize = 10;

/// How a run is going.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    told: HashSet<String>,
    last: (Duration, u64),
}

impl Progress {
    /// For a run of so many records, or until it is stopped.
    pub(crate) fn new(records: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| match records {
            Some(records) => {
                ProgressBar::new(records).with_style(style("{bar:32} {percent:>3}%  {msg}"))
            }
            None => ProgressBar::new_spinner().with_style(style("{spinner} {elapsed}  {msg}")),
        });
        Progress { bar, told: HashSet::new(), last: (Duration::ZERO, 0) }
    }

    /// How often `update` should be called.
    pub(crate) fn interval(&self) -> Duration {
        if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY }
    }

    /// Shows how far the run has got after a time.
    pub(crate) fn update(&mut self, tally: &Tally, elapsed: Duration) {
        let acknowledged = tally.acknowledged();
        let seconds = (elapsed.saturating_sub(self.last.0)).as_secs_f64().max(1e-3);
        let rate = (acknowledged - self.last.1) as f64 / seconds;
        self.last = (elapsed, acknowledged);
        let Latency { p50, p99, .. } = tally.latency();
        let text = format!(
            "{} records/s, latency p50 {p50:.1} ms, p99 {p99:.1} ms, {} retries",
            grouped(rate as u64),
            grouped(tally.retries()),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(acknowledged);
                bar.set_message(text);
            }
            None => output::note(&format!("{} records: {text}", grouped(acknowledged))),
        }
    }

    /// Says something, once.
    pub(crate) fn note(&mut self, text: &str) {
        if self.told.len() >= TROUBLES_MAX || !self.told.insert(text.to_owned()) {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is one of two constants")
}
