//! Windows as they are printed, for one who follows.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::{Statistics, failed, printed_windows};
use crate::admin::AdminError;
use crate::checkpoint::facts::Facts;
use crate::event::time::Window;

/// The windows that somebody was told of and those that follow.
pub(super) struct Following {
    statistics: Arc<Statistics>,
    facts: watch::Receiver<Arc<Facts>>,
    told: BTreeSet<(u32, Window)>,
}

impl Following {
    /// Begins after the windows that ended at `after` or earlier, or after all that there are.
    ///
    /// # Errors
    /// While the node takes no part.
    pub(super) fn begin(
        statistics: Arc<Statistics>,
        after: Option<Timestamp>,
    ) -> Result<Following, AdminError> {
        let facts = statistics.reader()?.gathering.facts;
        let is_told = |window: &Window| after.is_none_or(|after| window.end.timestamp() <= after);
        let windows = printed_windows(&facts.borrow()).into_iter();
        let windows = windows.map(|(number, window, _)| (number, window));
        let told = windows.filter(|(_, window)| is_told(window)).collect();
        Ok(Following { statistics, facts, told })
    }

    /// The next line.
    ///
    /// # Errors
    /// When the node takes no part any more, or something is broken.
    pub(super) async fn next(&mut self) -> Result<Box<RawValue>, AdminError> {
        loop {
            let facts = self.facts.borrow_and_update().clone();
            let windows = printed_windows(&facts);
            let known: BTreeSet<_> = windows.iter().map(|&(n, window, _)| (n, window)).collect();
            self.told.retain(|told| known.contains(told));
            for (number, window, printed) in windows.into_iter().rev() {
                if self.told.contains(&(number, window)) {
                    continue;
                }
                let reader = self.statistics.reader()?;
                let line = self.statistics.line(&reader, number, window, printed).await?;
                // One whose results are not reached is tried again with the next cut.
                if let Some(line) = line {
                    self.told.insert((number, window));
                    return RawValue::from_string(line.to_string()).map_err(failed);
                }
            }
            let over = |_| AdminError::Unavailable("the node is stopping".to_owned());
            self.facts.changed().await.map_err(over)?;
        }
    }
}
