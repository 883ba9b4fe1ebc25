//! Closed windows on stdout, and nothing else there.

use std::io::{self, Write};

use sheaf_proto::statistics::{ValueCount, WaitsFor, WindowCounts};

use crate::sink::{DeliveryKey, Promise, Sink, SinkError};

/// How a window is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object on one line.
    Json,
    /// The window's time, then one value per line, for people.
    Text,
}

/// Writes windows to `out`, each with one write, so that lines never mix.
pub struct Stdout<W> {
    out: W,
    format: Format,
}

impl<W: Write + Send> Stdout<W> {
    /// A sink that writes to `out`.
    pub fn new(out: W, format: Format) -> Stdout<W> {
        Stdout { out, format }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write + Send + Sync> Sink for Stdout<W> {
    fn promise(&self) -> Promise {
        Promise::Repeatable
    }

    fn deliver(&mut self, key: &DeliveryKey, counts: &WindowCounts) -> Result<(), SinkError> {
        let text = match self.format {
            Format::Text => text(counts),
            Format::Json => {
                let line = serde_json::to_string(counts);
                line.map_err(|source| SinkError::Format { window: key.start, source })? + "\n"
            }
        };
        self.write(&text).map_err(|source| SinkError::Closed { window: key.start, source })
    }
}

/// A window as people read it.
fn text(counts: &WindowCounts) -> String {
    let WindowCounts { aggregation, window, records, distinct, unknown, other, .. } = counts;
    let mut text = format!(
        "{} .. {}  {aggregation}: {distinct} distinct of {records} records",
        window.start, window.end
    );
    if let Some(WaitsFor { nodes, .. }) = &counts.waits_for {
        let nodes: Vec<_> = nodes.iter().map(u64::to_string).collect();
        text.push_str(&format!(", incomplete: waits for node {}", nodes.join(", ")));
    } else if counts.revision > 1 {
        text.push_str(", now complete");
    }
    text.push('\n');
    for ValueCount { value, count, .. } in &counts.counts {
        text.push_str(&format!("{value} - {count}\n"));
    }
    if other.values > 0 {
        text.push_str(&format!("{} other values - {}\n", other.values, other.count));
    }
    if *unknown > 0 {
        text.push_str(&format!("unknown - {unknown}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use sheaf_proto::statistics::{Other, WindowSpan};
    use uuid::Uuid;

    use super::*;
    use crate::event::time::UnixNanos;

    fn counts() -> WindowCounts {
        let count = |value: &str, count| ValueCount { value: value.into(), kind: None, count };
        let start: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
        let end: Timestamp = "2026-11-21T03:00:10Z".parse().unwrap();
        WindowCounts {
            aggregation: "by-foo".to_owned(),
            kind: "DistinctLogs".to_owned(),
            attribute: "foo".to_owned(),
            window: WindowSpan { start, end },
            complete: true,
            waits_for: None,
            settled: false,
            lost: Vec::new(),
            revision: 1,
            records: 5,
            distinct: 5,
            upper_bound: false,
            unknown: 1,
            counts: vec![count("baz", 2), count("bar", 1), count("qux", 1)],
            other: Other::default(),
            slots: None,
        }
    }

    fn delivered(counts: &WindowCounts, format: Format) -> String {
        let start = UnixNanos(0);
        let key = DeliveryKey { cluster: Uuid::nil(), aggregation: 0, start, revision: 1 };
        let mut out = Vec::new();
        Stdout::new(&mut out, format).deliver(&key, counts).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_window_is_one_json_line() {
        let expected = concat!(
            r#"{"aggregation":"by-foo","type":"DistinctLogs","attribute":"foo","#,
            r#""window":{"start":"2026-11-21T03:00:00Z","end":"2026-11-21T03:00:10Z"},"#,
            r#""complete":true,"revision":1,"records":5,"distinct":5,"unknown":1,"#,
            r#""counts":[{"value":"baz","count":2},{"value":"bar","count":1},"#,
            r#"{"value":"qux","count":1}],"other":{"values":0,"count":0}}"#,
            "\n"
        );
        assert_eq!(delivered(&counts(), Format::Json), expected);
    }

    #[test]
    fn people_read_one_value_per_line_under_the_windows_time() {
        let expected = "2026-11-21T03:00:00Z .. 2026-11-21T03:00:10Z  by-foo: 5 distinct of 5 records\n\
                        \"baz\" - 2\n\"bar\" - 1\n\"qux\" - 1\nunknown - 1\n";
        assert_eq!(delivered(&counts(), Format::Text), expected);
    }

    #[test]
    fn a_window_that_is_not_complete_says_what_it_waits_for() {
        let (slots, nodes, segments) = ("0-84".to_owned(), vec![1, 3], vec![7]);
        let waits_for = Some(WaitsFor { slots, nodes, segments });
        let waiting = WindowCounts { complete: false, waits_for, ..counts() };
        let json = r#""complete":false,"waits_for":{"slots":"0-84","nodes":[1,3],"segments":[7]},"revision":1"#;
        assert!(delivered(&waiting, Format::Json).contains(json));
        let text = "5 distinct of 5 records, incomplete: waits for node 1, 3\n";
        assert!(delivered(&waiting, Format::Text).contains(text));
        let settled = WindowCounts { revision: 2, ..counts() };
        assert!(delivered(&settled, Format::Text).contains("5 records, now complete\n"));
    }
}
