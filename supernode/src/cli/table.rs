//! Aligned tables that fit a terminal of 80 columns.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Widest line, columns.
pub const WIDTH: usize = 80;
/// Between two columns.
const GAP: usize = 2;
/// A column is never cut below this.
const MIN: usize = 8;

/// A column's heading, and whether its cells stand at the right.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Cells stand at the left.
    Left(&'static str),
    /// Cells stand at the right.
    Right(&'static str),
}

/// Heading and rows, lines ended; empty if there is no row.
pub fn render(columns: &[Column], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heading: Vec<String> = columns
        .iter()
        .map(|column| column.heading().to_owned())
        .collect();
    let widths = widths(&heading, rows);
    let mut out = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(columns).zip(&widths) {
            let cell = cut(cell, *width);
            let space = " ".repeat(width - cell.width());
            match column {
                Column::Left(_) => line.extend([cell.as_str(), &space]),
                Column::Right(_) => line.extend([space.as_str(), &cell]),
            }
            line.push_str("  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }
}

/// What each column needs; the widest give way until a line fits.
fn widths(heading: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = (0..heading.len())
        .map(|index| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            let widest = cells
                .chain(&heading[index..=index])
                .map(|cell| clean(cell).width())
                .max();
            widest.unwrap_or(0)
        })
        .collect();
    let room = WIDTH.saturating_sub(GAP * heading.len().saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > MIN => *widest -= 1,
            _ => break,
        }
    }
    widths
}

/// Control characters could move the cursor; they become spaces.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// At most `width` columns of `text`.
pub fn cut(text: &str, width: usize) -> String {
    let text = clean(text);
    if text.width() <= width {
        return text;
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_align_and_the_widest_column_gives_way() {
        let rows = vec![
            vec!["木の名前.txt".to_owned(), "12 B".to_owned()],
            vec!["x".repeat(100), "3.4 kB".to_owned()],
            vec!["bell\u{7}".to_owned(), "0 B".to_owned()],
        ];
        let text = render(&[Column::Left("NAME"), Column::Right("SIZE")], &rows);
        let expected = [
            format!("NAME{}    SIZE", " ".repeat(68)),
            format!("木の名前.txt{}    12 B", " ".repeat(60)),
            format!("{}…  3.4 kB", "x".repeat(71)),
            format!("bell{}     0 B", " ".repeat(68)),
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert!(text.lines().all(|line| line.width() <= WIDTH));
    }

    #[test]
    fn no_rows_print_nothing() {
        assert_eq!(render(&[Column::Left("NAME")], &[]), "");
    }
}
