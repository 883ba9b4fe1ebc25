//! The counts that must come out at the other end.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use serde::{Serialize, Serializer};

use super::{corpus::Corpus, encode::Form, plan::Plan};

/// What a node must have counted, by distinct body, if all acknowledged records
/// fell into one window.
///
/// It is exact if nothing was rejected or left unacknowledged: a node does not tell
/// which records it rejected, and a request without an acknowledgement may have been
/// counted all the same. One that was sent again has the same id and counts once.
#[derive(Debug, Serialize)]
pub(crate) struct Expected<'a> {
    /// The attribute that the counts are grouped by.
    pub(crate) attribute: &'a str,
    /// The records in acknowledged requests.
    pub(crate) records: u64,
    /// The distinct ones.
    pub(crate) distinct: u64,
    /// Of those, the ones without the attribute.
    pub(crate) unknown: u64,
    /// Requests that were sent more than once.
    pub(crate) retried: u64,
    /// Records that were rejected within acknowledged requests; they are counted here.
    pub(crate) rejected: u64,
    /// Requests that were sent and not acknowledged; they are not counted here.
    pub(crate) unacknowledged: u64,
    /// The counts, highest first, then by value.
    pub(crate) counts: Counts<'a>,
}

/// How many distinct records have each value.
#[derive(Debug)]
pub(crate) struct Counts<'a> {
    form: &'a Form,
    /// Value and count, in order.
    counts: Vec<(u32, u64)>,
}

/// What is known after a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    /// The contents of the records.
    pub(crate) corpus: &'a Corpus,
    /// How values are written.
    pub(crate) form: &'a Form,
    /// How records were spread over requests.
    pub(crate) plan: Plan,
    /// The requests below this number were sent.
    pub(crate) sent: u64,
    /// Of those, the ones that were not acknowledged.
    pub(crate) unacknowledged: &'a [u64],
    /// Requests that were sent more than once.
    pub(crate) retried: u64,
    /// Records that were rejected.
    pub(crate) rejected: u64,
}

impl<'a> Expected<'a> {
    /// Goes through all records once more; nothing was kept of them.
    pub(crate) fn of(run: Run<'a>) -> Self {
        let mut missing = run.unacknowledged.to_vec();
        missing.sort_unstable();
        let mut seen = Bits::default();
        let mut per_value = vec![0_u64; run.corpus.values as usize];
        let (mut records, mut distinct, mut unknown) = (0, 0, 0);
        for request in (0..run.sent).filter(|request| missing.binary_search(request).is_err()) {
            let first = run.plan.first_record(request);
            let count = run.plan.records_in(request);
            records += count;
            for record in first..first + count {
                let body = run.corpus.body(record);
                if seen.insert(body) {
                    distinct += 1;
                    match run.corpus.value(body) {
                        Some(value) => per_value[value as usize] += 1,
                        None => unknown += 1,
                    }
                }
            }
        }
        let mut counts: Vec<(u32, u64)> =
            (0..).zip(per_value).filter(|&(_, count)| count > 0).collect();
        // Values of equal width sort as their numbers do.
        counts.sort_by_key(|&(value, count)| (std::cmp::Reverse(count), value));
        Expected {
            attribute: &run.form.attribute,
            records,
            distinct,
            unknown,
            retried: run.retried,
            rejected: run.rejected,
            unacknowledged: missing.len() as u64,
            counts: Counts { form: run.form, counts },
        }
    }

    /// Writes it as JSON. The file is there whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let mut file = BufWriter::new(File::create(&partial)?);
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(&partial, path)
    }
}

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line {
            value: String,
            count: u64,
        }
        serializer.collect_seq(
            self.counts
                .iter()
                .map(|&(value, count)| Line { value: self.form.value_text(value), count }),
        )
    }
}

/// A set of small numbers.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Whether the number is new.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.0.len() {
            self.0.resize((word + 1).max(self.0.len() * 2), 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{
        corpus::Bodies,
        ring::Ring,
        scripted::{gunzip, recount},
    };

    fn check(bodies: Bodies, unknown_percent: u32, gzip: bool, distinct_requests: u64) {
        let corpus = Corpus { bodies, values: 15, unknown_percent, seed: 9 };
        let form = Form { attribute: "http.route".into(), values: 15, grpc_prefix: false, time: 0 };
        let plan = Plan { records: 4_033, batch: 40, distinct_requests };
        let mut ring = if gzip {
            Ring::compressed(corpus.clone(), form.clone(), plan)
        } else {
            Ring::uncompressed(corpus.clone(), form.clone(), plan, 4)
        };
        let missing = [70, 3];
        let sent = plan.requests();
        let run = Run {
            corpus: &corpus,
            form: &form,
            plan,
            sent,
            unacknowledged: &missing,
            retried: 0,
            rejected: 0,
        };
        let mut acknowledged = Vec::new();
        for request in 0..sent {
            let loaded = ring.take(request);
            if !missing.contains(&request) {
                acknowledged.push(if gzip { gunzip(&loaded.bytes) } else { loaded.bytes.to_vec() });
            }
            ring.give_back(loaded, request);
        }
        let mut recounted = recount("http.route", &acknowledged);
        recounted["unacknowledged"] = missing.len().into();
        assert_eq!(serde_json::to_value(Expected::of(run)).unwrap(), recounted);
    }

    #[test]
    fn a_plain_recount_of_decoded_requests_agrees() {
        check(Bodies::Share(300_000), 0, false, u64::MAX);
        check(Bodies::Share(300_000), 25, false, u64::MAX);
        check(Bodies::Share(1_000_000), 0, false, u64::MAX);
        check(Bodies::Pool(500), 100, false, u64::MAX);
    }

    #[test]
    fn a_recount_of_compressed_requests_agrees() {
        check(Bodies::Share(500_000), 10, true, u64::MAX);
        check(Bodies::Share(500_000), 10, true, 20);
    }

    #[test]
    fn a_file_is_written_whole_and_no_other_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = Corpus { bodies: Bodies::Pool(2), values: 1, unknown_percent: 0, seed: 0 };
        let form = Form { attribute: "a".into(), values: 1, grpc_prefix: false, time: 0 };
        let plan = Plan { records: 3, batch: 10, distinct_requests: u64::MAX };
        let run = Run {
            corpus: &corpus,
            form: &form,
            plan,
            sent: 1,
            unacknowledged: &[],
            retried: 0,
            rejected: 0,
        };
        let path = folder.path().join("expected.json");
        Expected::of(run).write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"attribute\":\"a\",\"records\":3,\"distinct\":2,\"unknown\":0,\"retried\":0,\
             \"rejected\":0,\"unacknowledged\":0,\
             \"counts\":[{\"value\":\"/api/v1/resource0/items\",\"count\":2}]}\n"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
