//! How a run is cut into requests.

/// The requests of a run, numbered from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// All records; `u64::MAX` when only the time ends the run.
    pub(crate) records: u64,
    /// Records per request; the last request has what is left.
    pub(crate) batch: u64,
    /// Full requests with a number of this and above have the content of an
    /// earlier one; `u64::MAX` when none does.
    pub(crate) distinct_requests: u64,
}

impl Plan {
    /// The number of requests.
    pub(crate) fn requests(&self) -> u64 {
        self.records.div_ceil(self.batch)
    }

    /// The number of records in a request.
    pub(crate) fn records_in(&self, request: u64) -> u64 {
        (self.records - request * self.batch).min(self.batch)
    }

    /// The corpus record that a request begins with.
    pub(crate) fn first_record(&self, request: u64) -> u64 {
        self.content(request) * self.batch
    }

    /// The request whose content a request repeats, or itself.
    pub(crate) fn content(&self, request: u64) -> u64 {
        if self.records_in(request) < self.batch {
            request
        } else {
            request % self.distinct_requests
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_request_has_what_is_left() {
        let plan = Plan { records: 2_500, batch: 1_000, distinct_requests: u64::MAX };
        assert_eq!(plan.requests(), 3);
        assert_eq!((plan.records_in(1), plan.records_in(2)), (1_000, 500));
        assert_eq!(plan.first_record(2), 2_000);
    }

    #[test]
    fn repeated_requests_begin_where_the_first_did_and_the_short_one_is_its_own() {
        let plan = Plan { records: 4_500, batch: 1_000, distinct_requests: 3 };
        let first: Vec<u64> = (0..plan.requests()).map(|n| plan.first_record(n)).collect();
        assert_eq!(first, [0, 1_000, 2_000, 0, 4_000]);
    }
}
