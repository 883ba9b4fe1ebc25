//! Text in aligned columns.

const GAP: &str = "  ";
const INDENT: &str = "  ";

/// Rows of equal length: columns of text to the left, then columns of numbers to the right.
#[derive(Debug)]
pub(crate) struct Table {
    texts: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a first row, whose first `texts` columns are text.
    pub(crate) fn new<const N: usize>(texts: usize, heads: [&str; N]) -> Self {
        Table { texts, rows: vec![heads.map(str::to_owned).into()] }
    }

    /// Another row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// One line per row, each with its end.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                text.push_str(if column == 0 { INDENT } else { GAP });
                if column < self.texts {
                    text.push_str(&format!("{cell:<width$}"));
                } else {
                    text.push_str(&format!("{cell:>width$}"));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(1, ["value", "count"]);
        table.row(["\"größer\"".into(), "1,000,000".into()]);
        table.row(["x".into(), "7".into()]);
        let lines =
            ["  value         count", "  \"größer\"  1,000,000", "  x                 7", ""];
        assert_eq!(table.render(), lines.join("\n"));
    }

    #[test]
    fn texts_stand_to_the_left_and_numbers_to_the_right() {
        let mut table = Table::new(2, ["node", "state", "slots"]);
        table.row(["1".into(), "draining".into(), "9".into()]);
        table.row(["12".into(), "active".into(), "100".into()]);
        let lines =
            ["  node  state     slots", "  1     draining      9", "  12    active      100", ""];
        assert_eq!(table.render(), lines.join("\n"));
    }
}
