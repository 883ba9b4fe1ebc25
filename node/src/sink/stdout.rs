//! Closed windows on stdout, and nothing else there.

use std::io::{self, Write};

use sheaf_proto::statistics::{ValueCount, WindowCounts};

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
        "{} .. {}  {aggregation}: {distinct} distinct of {records} records\n",
        window.start, window.end
    );
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

    fn delivered(format: Format) -> String {
        let count = |value: &str, count| ValueCount { value: value.into(), kind: None, count };
        let start: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
        let end: Timestamp = "2026-11-21T03:00:10Z".parse().unwrap();
        let counts = WindowCounts {
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
        };
        let start = UnixNanos(0);
        let key = DeliveryKey { cluster: Uuid::nil(), aggregation: 0, start, revision: 1 };
        let mut out = Vec::new();
        Stdout::new(&mut out, format).deliver(&key, &counts).unwrap();
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
        assert_eq!(delivered(Format::Json), expected);
    }

    #[test]
    fn people_read_one_value_per_line_under_the_windows_time() {
        let expected = "2026-11-21T03:00:00Z .. 2026-11-21T03:00:10Z  by-foo: 5 distinct of 5 records\n\
                        \"baz\" - 2\n\"bar\" - 1\n\"qux\" - 1\nunknown - 1\n";
        assert_eq!(delivered(Format::Text), expected);
    }
}
