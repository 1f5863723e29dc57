//! Lays out a table: the width of each column, a header, colours.

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::columns::{Cell, Column, Tone};
use crate::presentation::Presentation;

/// Columns between two cells.
const GAP: usize = 2;
/// The last cell is cut to no less than this many columns.
const MIN_LAST_COLUMNS: usize = 20;
/// What stands for what was cut.
const CUT: &str = "…";

/// Returns the lines of a table, with the header where it has one.
pub fn table_lines<'a>(
    columns: &[Column],
    rows: impl IntoIterator<Item = &'a Value>,
    presentation: &Presentation,
) -> Vec<String> {
    let columns: Vec<&Column> =
        columns.iter().filter(|column| presentation.is_wide() || !column.is_wide_only).collect();
    let cells: Vec<Vec<Cell>> =
        rows.into_iter().map(|row| columns.iter().map(|column| column.cell(row, presentation)).collect()).collect();
    let has_header = presentation.has_header && !cells.is_empty();
    let header = |column: &&Column| if has_header { column.header.width() } else { 0 };
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| cells.iter().map(|row| row[index].text.width()).fold(header(column), usize::max))
        .collect();
    let last_columns = last_columns(&widths, presentation);
    let mut lines = Vec::with_capacity(cells.len() + 1);
    if has_header {
        let header: Vec<Cell> =
            columns.iter().map(|column| Cell { text: column.header.to_owned(), tone: Tone::Dim }).collect();
        lines.push(line(&columns, &header, &widths, last_columns, presentation.color));
    }
    lines.extend(cells.iter().map(|cells| line(&columns, cells, &widths, last_columns, presentation.color)));
    lines
}

/// Columns that are left for the last cell; `None` if it is not cut.
fn last_columns(widths: &[usize], presentation: &Presentation) -> Option<usize> {
    let total = presentation.columns.filter(|_| !presentation.is_wide())?;
    let before: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
    Some(total.saturating_sub(before).max(MIN_LAST_COLUMNS))
}

fn line(columns: &[&Column], cells: &[Cell], widths: &[usize], last: Option<usize>, color: bool) -> String {
    let mut line = String::new();
    for (index, (column, cell)) in columns.iter().zip(cells).enumerate() {
        let is_last = index + 1 == columns.len();
        let text = match last.filter(|_| is_last) {
            Some(columns) => cut(&cell.text, columns),
            None => cell.text.clone(),
        };
        let padding = " ".repeat(widths[index].saturating_sub(text.width()));
        let text = colored(&text, cell.tone, color);
        match (column.is_right_aligned, is_last) {
            (true, _) => line.extend([padding, text]),
            (false, true) => line.push_str(&text),
            (false, false) => line.extend([text, padding]),
        }
        if !is_last {
            line.push_str(&" ".repeat(GAP));
        }
    }
    line
}

/// Cuts a text that is wider than a number of columns.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut width = CUT.width();
    let fits = |character: &char| {
        width += character.width().unwrap_or_default();
        width <= columns
    };
    let mut kept: String = text.chars().take_while(fits).collect();
    kept.push_str(CUT);
    kept
}

/// Returns a text in the colour of its tone.
pub fn colored(text: &str, tone: Tone, color: bool) -> String {
    let style = match tone {
        _ if !color => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Tone::Waiting => Style::new().fg_color(Some(AnsiColor::Cyan.into())),
        Tone::Warning => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Tone::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Tone::Dim => Style::new().dimmed(),
    };
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wardroom_domain::Timestamp;

    use super::*;
    use crate::columns::{severity_tone, state_tone};
    use crate::presentation::OutputFormat;

    const COLUMNS: &[Column] = &[
        Column::text("ID", "/id"),
        Column::text("STATE", "/state").toned(state_tone),
        Column::text("SEVERITY", "/severity").toned(severity_tone).wide(),
        Column::bytes("BYTES", "/bytes"),
        Column::time("OPENED", "/opened_at"),
        Column::names("ENTITIES", "/entities", "name").wide(),
        Column::text("TITLE", "/title"),
    ];

    fn rows() -> Vec<Value> {
        vec![
            json!({ "id": "INC-1", "state": "awaiting_approval", "severity": "high", "bytes": 2_097_152,
                "opened_at": "2026-01-02T03:04:05Z", "entities": [{ "name": "cart" }, { "name": "db" }],
                "title": "Réponses lentes 応答が遅い at cart\u{1b}[2J and everything that calls it" }),
            json!({ "id": "INC-20", "state": "resolved", "severity": "info", "bytes": 7,
                "opened_at": "2026-01-02T02:00:00Z", "entities": [] }),
        ]
    }

    fn lines(presentation: &Presentation) -> String {
        table_lines(COLUMNS, &rows(), presentation).join("\n")
    }

    fn on_terminal() -> Presentation {
        Presentation {
            format: OutputFormat::Table,
            is_terminal: true,
            has_header: true,
            color: false,
            columns: Some(80),
            now: Timestamp::parse("2026-01-02T03:07:06Z").unwrap(),
        }
    }

    #[test]
    fn a_terminal_gets_a_header_and_ages_and_whole_lines() {
        insta::assert_snapshot!(lines(&on_terminal()));
    }

    #[test]
    fn a_pipe_gets_times_and_all_text_without_a_header() {
        let pipe = Presentation { is_terminal: false, has_header: false, columns: None, ..on_terminal() };
        insta::assert_snapshot!(lines(&pipe));
    }

    #[test]
    fn wide_shows_all_columns_and_times() {
        insta::assert_snapshot!(lines(&Presentation { format: OutputFormat::Wide, ..on_terminal() }));
    }

    #[test]
    fn colors_do_not_move_columns() {
        let plain = lines(&on_terminal());
        let colored = lines(&Presentation { color: true, ..on_terminal() });
        assert!(colored.contains("\u{1b}["), "{colored:?}");
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
    }

    #[test]
    fn an_empty_table_has_no_lines() {
        assert!(table_lines(COLUMNS, &[], &on_terminal()).is_empty());
    }
}
