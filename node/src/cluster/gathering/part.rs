//! One node's part of the sum.

use sheaf_proto::statistics::WindowCounts;

use super::{GatherError, Gathering, Place};
use crate::aggregation::distinct_logs::count_table::{self, Table};
use crate::blocking;
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::flush::aggregations;
use crate::flush::statistics::statistics;

impl Gathering {
    /// What this node has of the slots that it leads, of a window that was flushed for them,
    /// with at most `limit` values; `None` if there is nothing. When a window was flushed for
    /// all slots, and until slots move, the parts of all nodes add up to it. What cannot be
    /// divided, since one node had counted all of it, is told by whoever leads the first slot.
    ///
    /// # Errors
    /// When this node's database fails, or the definition of the aggregation cannot be read.
    pub async fn part(
        &self,
        number: u32,
        window: Window,
        limit: usize,
    ) -> Result<Option<WindowCounts>, GatherError> {
        let facts = self.facts.borrow().clone();
        let known = aggregations(&facts)?.into_iter().find(|known| known.number == number);
        let (Some(known), Some(fact)) = (known, facts.window(number, window)) else {
            return Ok(None);
        };
        let led = facts.primary_of(self.node).difference(&fact.waiting);
        let (mut of, mut records, mut tables) = (SlotSet::default(), 0, Vec::new());
        for result in self.results.find(number, window.end)? {
            if let Some(summary) = result.summary {
                let slots = Some(result.slots.to_string());
                return Ok(led.contains(0).then_some(WindowCounts { slots, ..summary }));
            }
            let slots = result.slots.intersection(&led);
            if !slots.is_empty() {
                of = of.union(&slots);
                records += result.records_of(&slots).values().sum::<u64>();
                let here = Place::Here(Box::new(result));
                let chunks = self.chunks(number, window, slots, here).await?;
                tables.push(Table { slots, chunks });
            }
        }
        if of.is_empty() {
            return Ok(None);
        }
        let merging = blocking::run(move || count_table::merge(tables, records, limit));
        let counts = merging.await?.map_err(|error| error.source)?.counts;
        let slots = Some(of.to_string());
        Ok(Some(WindowCounts { slots, ..statistics(&known.definition, window, counts) }))
    }
}
