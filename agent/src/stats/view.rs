//! Windows and the ledger, for people.

use sheaf_proto::statistics::{Ledger, ValueCount, WindowCounts};

use crate::{
    table::Table,
    text::{grouped, printable},
};

/// A longer value would push the counts off the screen.
const VALUE_CHARACTERS_MAX: usize = 60;

/// The open windows, and the last `limit` closed ones of each aggregation's list,
/// newest first as the node gives them, with at most `top` values each.
pub(crate) fn windows(
    open: &[WindowCounts],
    closed: &[WindowCounts],
    limit: usize,
    top: usize,
) -> String {
    let mut parts: Vec<String> = open.iter().map(|counts| window(counts, true, top)).collect();
    parts.extend(newest(closed, limit).map(|counts| window(counts, false, top)));
    if parts.is_empty() {
        return "no windows yet".into();
    }
    parts.join("\n").trim_end().into()
}

/// With several aggregations, so many of each.
fn newest(closed: &[WindowCounts], limit: usize) -> impl Iterator<Item = &WindowCounts> {
    closed.iter().enumerate().filter_map(move |(index, counts)| {
        let same = |other: &&WindowCounts| {
            (&other.aggregation, &other.attribute) == (&counts.aggregation, &counts.attribute)
        };
        (closed[..index].iter().filter(same).count() < limit).then_some(counts)
    })
}

fn window(counts: &WindowCounts, open: bool, top: usize) -> String {
    let WindowCounts { attribute, window, distinct, .. } = counts;
    let part = counts.slots.as_ref().map(|slots| format!("slots {}", printable(slots)));
    let mut notes = Vec::new();
    if open {
        notes.push("so far");
    } else if let Some(part) = &part {
        notes.push(part);
    } else if counts.settled {
        notes.push("incomplete for good");
    } else if !counts.complete {
        notes.push("incomplete");
    }
    if counts.upper_bound {
        notes.push("at most");
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
    let mut text = format!(
        "{} by {}, {} to {}{notes}: {} records, {} distinct\n",
        printable(&counts.aggregation),
        printable(attribute),
        window.start,
        window.end,
        grouped(counts.records),
        grouped(*distinct),
    );
    let mut table = Table::new(1, ["value", "distinct", "share"]);
    let mut line = |name: String, count: u64| {
        table.row([name, grouped(count), share(count, *distinct)]);
    };
    for counted in counts.counts.iter().take(top) {
        line(value(counted), counted.count);
    }
    if counts.unknown > 0 {
        line("unknown".into(), counts.unknown);
    }
    let hidden = counts.counts.get(top..).unwrap_or_default();
    let others = counts.other.values + hidden.len() as u64;
    if others > 0 {
        let plural = if others == 1 { "" } else { "s" };
        let count = counts.other.count + hidden.iter().map(|counted| counted.count).sum::<u64>();
        line(format!("{} other value{plural}", grouped(others)), count);
    }
    if *distinct > 0 {
        text.push_str(&table.render());
    }
    text
}

/// As JSON, so that 1 and "1" differ, with the type where JSON cannot tell it.
fn value(counted: &ValueCount) -> String {
    let mut text = printable(&counted.value.to_string());
    if text.chars().count() > VALUE_CHARACTERS_MAX {
        text = text.chars().take(VALUE_CHARACTERS_MAX - 1).chain(['…']).collect();
    }
    match &counted.kind {
        Some(kind) => format!("{text} ({})", printable(kind)),
        None => text,
    }
}

fn share(count: u64, of: u64) -> String {
    format!("{:.1}%", count as f64 * 100.0 / of.max(1) as f64)
}

/// What came in against what went out.
pub(crate) fn ledger(ledger: &Ledger) -> String {
    let mut totals = Table::new(1, ["records", ""]);
    totals.row(["received".into(), grouped(ledger.received)]);
    totals.row(["accepted".into(), grouped(ledger.accepted)]);
    for (reason, &count) in &ledger.rejected {
        totals.row([format!("rejected: {}", printable(reason)), grouped(count)]);
    }
    let heads = [
        "aggregation",
        "accepted",
        "flushed",
        "distinct",
        "duplicate",
        "pending",
        "lost",
        "deduplicated",
    ];
    let mut accounts = Table::new(1, heads);
    for account in &ledger.aggregations {
        accounts.row([
            printable(&account.aggregation),
            grouped(account.accepted),
            grouped(account.flushed),
            grouped(account.distinct),
            grouped(account.duplicate),
            grouped(account.pending),
            grouped(account.lost),
            grouped(account.deduplicated),
        ]);
    }
    let verdict = if ledger.balanced { "balanced" } else { "NOT BALANCED" };
    format!("ledger: {verdict}\n{}\n{}", totals.render(), accounts.render().trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn window(changes: Value) -> WindowCounts {
        let mut window = json!({
            "aggregation": "by-foo", "type": "DistinctLogs", "attribute": "foo",
            "window": {"start": "2026-11-21T03:00:00Z", "end": "2026-11-21T03:00:10Z"},
            "complete": true, "revision": 1, "records": 1205, "distinct": 5, "unknown": 1,
            "counts": [
                {"value": "baz", "count": 2}, {"value": "bar", "count": 1}, {"value": 1, "count": 1},
            ],
            "other": {"values": 0, "count": 0},
        });
        let changes = changes.as_object().unwrap().clone();
        window.as_object_mut().unwrap().extend(changes);
        serde_json::from_value(window).unwrap()
    }

    fn shown(window: WindowCounts, top: usize) -> Vec<String> {
        windows(&[], &[window], 3, top).lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_window_is_a_table_of_its_values() {
        let lines = [
            "by-foo by foo, 2026-11-21T03:00:00Z to 2026-11-21T03:00:10Z: 1,205 records, 5 distinct",
            "  value    distinct  share",
            "  \"baz\"           2  40.0%",
            "  \"bar\"           1  20.0%",
            "  1               1  20.0%",
            "  unknown         1  20.0%",
        ];
        assert_eq!(shown(window(json!({})), 20), lines);
    }

    #[test]
    fn what_is_not_listed_is_summed_up() {
        let other = json!({"other": {"values": 1200, "count": 5000}, "distinct": 5005});
        let lines = shown(window(other), 1);
        assert_eq!(lines[2], "  \"baz\"                      2   0.0%");
        assert_eq!(lines[3], "  unknown                    1   0.0%");
        assert_eq!(lines[4], "  1,202 other values     5,002  99.9%");
    }

    #[test]
    fn open_windows_come_first_and_say_what_they_are() {
        let open = window(json!({"complete": false, "upper_bound": true}));
        let text = windows(&[open], &[window(json!({})), window(json!({"complete": false}))], 3, 0);
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("by-foo")).collect();
        assert!(heads[0].contains("(so far, at most)"), "{text}");
        assert!(!heads[1].contains('('), "{text}");
        assert!(heads[2].contains("(incomplete)"), "{text}");
        let part = window(json!({"complete": false, "slots": "0-84"}));
        assert!(shown(part, 0)[0].contains("03:00:10Z (slots 0-84): 1,205"));
    }

    #[test]
    fn as_many_closed_windows_of_each_aggregation_are_shown_as_asked() {
        let bar = window(json!({"aggregation": "by-bar"}));
        let closed = [window(json!({})), bar.clone(), window(json!({})), window(json!({})), bar];
        let text = windows(&[], &closed, 2, 20);
        assert_eq!(text.matches("by-foo by").count(), 2);
        assert_eq!(text.matches("by-bar by").count(), 2);
    }

    #[test]
    fn values_cannot_command_the_terminal_or_fill_it() {
        let long = "é".repeat(100);
        let counts = json!({"counts": [
            {"value": "\u{1b}[2J\u{9b}\u{202e}", "count": 1}, {"value": long, "count": 1},
            {"value": "AAE=", "type": "bytes", "count": 1},
        ]});
        let lines = shown(window(counts), 20);
        assert!(lines[2].contains(r#""\u001b[2J\u{9b}\u{202e}""#), "{}", lines[2]);
        assert!(lines[3].contains("éé…"), "{}", lines[3]);
        assert!(lines[4].contains(r#""AAE=" (bytes)"#), "{}", lines[4]);
        assert!(lines.iter().skip(1).all(|line| line.chars().count() < 90));
    }

    #[test]
    fn without_windows_it_says_so() {
        assert_eq!(windows(&[], &[], 3, 20), "no windows yet");
    }

    #[test]
    fn a_ledger_shows_every_account() {
        let ledger: Ledger = serde_json::from_value(json!({
            "received": 1010, "accepted": 1000, "rejected": {"MalformedBody": 10},
            "aggregations": [{"aggregation": "by-foo", "accepted": 1000, "flushed": 900,
                "distinct": 300, "duplicate": 600, "pending": 90, "lost": 10, "deduplicated": 20}],
            "balanced": true,
        }))
        .unwrap();
        let text = super::ledger(&ledger);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ledger: balanced");
        assert_eq!(lines[4], "  rejected: MalformedBody     10");
        assert_eq!(
            lines[6..],
            [
                "  aggregation  accepted  flushed  distinct  duplicate  pending  lost  deduplicated",
                "  by-foo          1,000      900       300        600       90    10            20",
            ]
        );
    }
}
