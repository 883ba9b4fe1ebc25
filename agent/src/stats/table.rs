//! Text in aligned columns.

const GAP: &str = "  ";
const INDENT: &str = "  ";

/// Rows of equal length; the first column to the left, the others to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a first row.
    pub(crate) fn new<const N: usize>(heads: [&str; N]) -> Self {
        Table { rows: vec![heads.map(str::to_owned).into()] }
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
            text.push_str(INDENT);
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => text.push_str(&format!("{cell:<width$}")),
                    _ => text.push_str(&format!("{GAP}{cell:>width$}")),
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
        let mut table = Table::new(["value", "count"]);
        table.row(["\"größer\"".into(), "1,000,000".into()]);
        table.row(["x".into(), "7".into()]);
        let lines =
            ["  value         count", "  \"größer\"  1,000,000", "  x                 7", ""];
        assert_eq!(table.render(), lines.join("\n"));
    }
}
