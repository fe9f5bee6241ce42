//! Tables of words, in columns that stand under each other.

use crate::cli::paint::{Paint, Style};

/// Blanks between columns.
const GAP: &str = "  ";

/// One word or number of a table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

/// Rows of cells.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Vec<Cell>>);

/// A word, at the left of its column.
pub(super) fn word(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), style: Style::Plain, right: false }
}

/// A number, at the right.
pub(super) fn number(text: impl Into<String>) -> Cell {
    Cell { right: true, ..word(text) }
}

impl Cell {
    /// The same in a style.
    pub(super) fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl Table {
    /// A table with a line of headings.
    pub(super) fn with_head(words: &[&str]) -> Self {
        Self(vec![words.iter().map(|text| word(*text).styled(Style::Head)).collect()])
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.0.push(cells.into_iter().collect());
    }

    /// The table as lines, each behind `indent`. Headings stand as their columns do.
    pub(super) fn lines(mut self, paint: Paint, indent: &str) -> String {
        self.align_heads();
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n: usize| self.0.iter().filter_map(|row| row.get(n)).map(Cell::width).max();
        let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.0 {
            let mut line = indent.to_owned();
            let mut blanks = 0;
            for (cell, width) in row.iter().zip(&widths) {
                let pad = width - cell.width();
                let (before, after) = if cell.right { (pad, 0) } else { (0, pad) };
                if !cell.text.is_empty() {
                    line.push_str(&" ".repeat(blanks + before));
                    line.push_str(&paint.paint(cell.style, &cell.text));
                    blanks = after + GAP.len();
                } else {
                    blanks += width + GAP.len();
                }
            }
            out.push_str(line.trim_end_matches(' '));
            out.push('\n');
        }
        out
    }

    fn align_heads(&mut self) {
        let rights: Vec<bool> =
            self.0.get(1).map(|row| row.iter().map(|c| c.right).collect()).unwrap_or_default();
        if let Some(first) = self.0.first_mut().filter(|row| row[0].style == Style::Head) {
            first.iter_mut().zip(rights).for_each(|(cell, right)| cell.right = right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_without_blanks_at_the_end() {
        let mut table = Table::with_head(&["name", "bytes", "why"]);
        table.row([word("ä"), number("5"), word("")]);
        table.row([word("longer"), number("1,234"), word("full")]);
        let lines = table.lines(Paint::none(), "  ");
        assert_eq!(lines, "  name    bytes  why\n  ä           5\n  longer  1,234  full\n");
    }
}
