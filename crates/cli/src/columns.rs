//! Columns: which fields of a JSON object a table shows, and how.

use indicatif::HumanBytes;
use serde_json::Value;
use wardroom_domain::{Timestamp, visible_line};

use crate::age::format_age;
use crate::presentation::Presentation;

/// What stands for a field that is absent.
const ABSENT: &str = "-";

/// How a cell is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As text.
    Plain,
    /// As it should be.
    Good,
    /// It waits for something.
    Waiting,
    /// It needs attention.
    Warning,
    /// It is wrong.
    Bad,
    /// It is over, or of no interest.
    Dim,
}

/// The text of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// One line, without control characters.
    pub text: String,
    /// Its colour.
    pub tone: Tone,
}

/// How a field becomes text.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Text, a number or a list of them.
    Plain,
    /// A time: an age on a terminal.
    Time,
    /// A number of bytes.
    Bytes,
    /// A list of objects: this field of each.
    Names(&'static str),
    /// Made from the whole object.
    Made(fn(&Value) -> String),
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The header, in capitals.
    pub header: &'static str,
    /// JSON pointer to the field.
    pointer: &'static str,
    kind: Kind,
    tone: fn(&str) -> Tone,
    /// Whether only `-o wide` shows it.
    pub is_wide_only: bool,
    /// Whether it is aligned to the right.
    pub is_right_aligned: bool,
}

impl Column {
    /// A field as it is: text, a number, or a list of them.
    pub const fn text(header: &'static str, pointer: &'static str) -> Self {
        let tone = |_: &str| Tone::Plain;
        Self { header, pointer, kind: Kind::Plain, tone, is_wide_only: false, is_right_aligned: false }
    }

    /// A number.
    pub const fn number(header: &'static str, pointer: &'static str) -> Self {
        Self { is_right_aligned: true, ..Self::text(header, pointer) }
    }

    /// A number of bytes.
    pub const fn bytes(header: &'static str, pointer: &'static str) -> Self {
        Self { kind: Kind::Bytes, ..Self::number(header, pointer) }
    }

    /// A time in RFC 3339; an age on a terminal.
    pub const fn time(header: &'static str, pointer: &'static str) -> Self {
        Self { kind: Kind::Time, ..Self::text(header, pointer) }
    }

    /// A list of objects: the field `of` of each.
    pub const fn names(header: &'static str, pointer: &'static str, of: &'static str) -> Self {
        Self { kind: Kind::Names(of), ..Self::text(header, pointer) }
    }

    /// Text that is made from the whole object.
    pub const fn made(header: &'static str, make: fn(&Value) -> String) -> Self {
        Self { kind: Kind::Made(make), ..Self::text(header, "") }
    }

    /// The same, shown by `-o wide` only.
    pub const fn wide(self) -> Self {
        Self { is_wide_only: true, ..self }
    }

    /// The same, coloured by its text.
    pub const fn toned(self, tone: fn(&str) -> Tone) -> Self {
        Self { tone, ..self }
    }

    /// Returns the cell of an object.
    pub fn cell(&self, row: &Value, presentation: &Presentation) -> Cell {
        let value = row.pointer(self.pointer).unwrap_or(&Value::Null);
        let text = match self.kind {
            Kind::Plain => plain(value),
            Kind::Time => time(value, presentation),
            Kind::Bytes if presentation.is_terminal => {
                value.as_u64().map_or_else(|| plain(value), |bytes| HumanBytes(bytes).to_string())
            }
            Kind::Bytes => plain(value),
            Kind::Names(of) => {
                let names = value.as_array().into_iter().flatten().map(|item| plain(&item[of]));
                joined(names)
            }
            Kind::Made(make) => make(row),
        };
        let text = if text.is_empty() { ABSENT.to_owned() } else { visible_line(&text).into_owned() };
        Cell { tone: (self.tone)(&text), text }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => joined(items.iter().map(plain)),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

fn time(value: &Value, presentation: &Presentation) -> String {
    let text = plain(value);
    match Timestamp::parse(&text) {
        Ok(at) if presentation.has_ages() => format_age(at, presentation.now),
        _ => text,
    }
}

/// The colour of a state of an incident.
pub fn state_tone(state: &str) -> Tone {
    match state {
        "open" | "investigating" => Tone::Warning,
        "awaiting_approval" | "mitigating" | "verifying" => Tone::Waiting,
        "mitigated" | "resolved" => Tone::Good,
        "escalated" => Tone::Bad,
        "suppressed" | "closed" => Tone::Dim,
        _ => Tone::Plain,
    }
}

/// The colour of a severity.
pub fn severity_tone(severity: &str) -> Tone {
    match severity {
        "critical" | "high" => Tone::Bad,
        "warning" => Tone::Warning,
        "info" => Tone::Dim,
        _ => Tone::Plain,
    }
}
