//! The requests in memory, used again and again.
//!
//! Uncompressed requests are templates: before each sending the next records of the
//! corpus are filled in, so that new bodies keep coming while the run lasts.
//! Compressed ones cannot be changed: they are made beforehand, as many as the
//! run needs and `COMPRESSED_BYTES_MAX` allows, and then sent in turn.

use std::collections::VecDeque;

use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor};

use super::{
    corpus::Corpus,
    encode::{Form, Template, grpc_prefix},
    plan::Plan,
};

/// Templates differ in ids, names and times; this many of 1,000 records are 22 MB,
/// more than a processor's cache holds.
const TEMPLATES: usize = 64;
/// What compressed requests may take up: about a million records.
const COMPRESSED_BYTES_MAX: usize = 64 << 20;
/// What gzip and the OpenTelemetry SDKs use when not told otherwise.
const GZIP_LEVEL: i32 = 6;

/// Where requests come from and go back to.
#[derive(Debug)]
pub(crate) struct Ring {
    corpus: Corpus,
    form: Form,
    plan: Plan,
    random: fastrand::Rng,
    stock: Stock,
}

#[derive(Debug)]
enum Stock {
    Templates(VecDeque<Template>),
    Compressed(Vec<Bytes>),
}

/// A request on its way; goes back to the ring when it has been dealt with.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What is sent.
    pub(crate) bytes: Bytes,
    template: Option<Template>,
}

impl Ring {
    /// Encodes the requests. At least `in_flight` of them are kept, so that none
    /// has to be copied while it is being sent.
    pub(crate) fn uncompressed(corpus: Corpus, form: Form, plan: Plan, in_flight: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(corpus.seed);
        let count = plan.requests().min(in_flight.max(TEMPLATES) as u64);
        let templates =
            (0..count).map(|_| Template::new(&form, plan.batch as usize, &mut random)).collect();
        Ring { corpus, form, plan, random, stock: Stock::Templates(templates) }
    }

    /// Encodes and compresses the requests, and notes in the plan after how many
    /// of them they repeat.
    pub(crate) fn compressed(corpus: Corpus, form: Form, plan: Plan) -> Self {
        let random = fastrand::Rng::with_seed(corpus.seed);
        let mut ring = Ring { corpus, form, plan, random, stock: Stock::Compressed(Vec::new()) };
        let (mut requests, mut size) = (Vec::new(), 0);
        for number in 0..plan.requests() {
            if size > COMPRESSED_BYTES_MAX {
                ring.plan.distinct_requests = number;
                break;
            }
            let request = ring.compress(number);
            size += request.len();
            requests.push(request);
        }
        ring.stock = Stock::Compressed(requests);
        ring
    }

    /// How the run is cut into requests.
    pub(crate) fn plan(&self) -> Plan {
        self.plan
    }

    /// The request with this number.
    pub(crate) fn take(&mut self, number: u64) -> Loaded {
        let content = self.plan.content(number);
        if let Stock::Compressed(requests) = &self.stock {
            let made = usize::try_from(content).ok().and_then(|index| requests.get(index).cloned());
            let bytes = made.unwrap_or_else(|| self.compress(number));
            return Loaded { bytes, template: None };
        }
        let records = self.plan.records_in(number);
        let template = match &mut self.stock {
            Stock::Templates(idle) if records == self.plan.batch => idle.pop_front(),
            _ => None,
        };
        let template = template
            .unwrap_or_else(|| Template::new(&self.form, records as usize, &mut self.random))
            .fill(&self.corpus, self.plan.first_record(number));
        Loaded { bytes: template.bytes().clone(), template: Some(template) }
    }

    /// Takes a request back for another use.
    pub(crate) fn give_back(&mut self, loaded: Loaded, number: u64) {
        if let Stock::Templates(idle) = &mut self.stock
            && self.plan.records_in(number) == self.plan.batch
        {
            idle.extend(loaded.template);
        }
    }

    fn compress(&mut self, number: u64) -> Bytes {
        let form = Form { grpc_prefix: false, ..self.form.clone() };
        let template =
            Template::new(&form, self.plan.records_in(number) as usize, &mut self.random)
                .fill(&self.corpus, number * self.plan.batch);
        let content = gzip(template.bytes());
        if !self.form.grpc_prefix {
            return content.into();
        }
        [&grpc_prefix(true, content.len())[..], &content].concat().into()
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let level = CompressionLvl::new(GZIP_LEVEL).unwrap_or_default();
    let mut compressor = Compressor::new(level);
    let mut bytes = vec![0; compressor.gzip_compress_bound(content.len())];
    let written = compressor.gzip_compress(content, &mut bytes);
    bytes.truncate(written.expect("the bound is enough for any content"));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{corpus::Bodies, scripted::gunzip};

    fn ring(records: u64, compressed: bool, grpc_prefix: bool) -> Ring {
        let corpus =
            Corpus { bodies: Bodies::Share(300_000), values: 9, unknown_percent: 0, seed: 3 };
        let form = Form { attribute: "http.route".into(), values: 9, grpc_prefix, time: 0 };
        let plan = Plan { records, batch: 10, distinct_requests: u64::MAX };
        if compressed {
            Ring::compressed(corpus, form, plan)
        } else {
            Ring::uncompressed(corpus, form, plan, 4)
        }
    }

    #[test]
    fn what_comes_back_is_used_again_with_new_records() {
        let mut ring = ring(10_000, false, false);
        let first = ring.take(0);
        let (address, content) = (first.bytes.as_ptr(), first.bytes.to_vec());
        ring.give_back(first, 0);
        let mut others = Vec::new();
        let again = loop {
            let next = ring.take(others.len() as u64 + 1);
            if next.bytes.as_ptr() == address {
                break next;
            }
            others.push(next);
        };
        assert_eq!(others.len(), TEMPLATES - 1);
        assert_eq!(again.bytes.len(), content.len());
        assert_ne!(again.bytes, content);
    }

    #[test]
    fn more_in_flight_than_there_are_templates_makes_more() {
        let mut ring = ring(10_000, false, false);
        let all: Vec<Loaded> = (0..200).map(|number| ring.take(number)).collect();
        let addresses: std::collections::HashSet<_> =
            all.iter().map(|l| l.bytes.as_ptr()).collect();
        assert_eq!(addresses.len(), 200);
    }

    #[test]
    fn a_compressed_request_is_the_same_request() {
        let mut plain = ring(95, false, false);
        let mut bare = ring(95, true, false);
        let mut framed = ring(95, true, true);
        for number in [0, 9] {
            let size = plain.take(number).bytes.len();
            let content = gunzip(&bare.take(number).bytes);
            let framed = framed.take(number).bytes;
            assert!(content.len().abs_diff(size) < 100, "{} and {size}", content.len());
            assert_eq!(framed[..5], grpc_prefix(true, framed.len() - 5));
            assert_eq!(gunzip(&framed[5..]), content);
        }
    }
}
