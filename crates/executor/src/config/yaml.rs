//! Reads YAML that may contain credentials: an error says where and what is expected, and never repeats what is there.
//!
//! Problem: errors go to the log, to the server and to its clients, and the file holds credentials. The text of a YAML
//! error quotes the lines around it, and the values and keys that were found; a credential may be any of them, because
//! of a missing space or line. Model: the text is made here, of the position, the names of our own fields, and the type
//! that is expected.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment, Track};
use serde_saphyr::Error;
use wardroom_tools::TARGET_FIELD;

/// Beginning of the part of an error about a name that does not repeat the name.
const NOT_A_NAME: &str = "is not a valid name";

/// Parses a document.
///
/// # Errors
/// Returns field, line, column and reason, without anything of the document.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut track = Track::new();
    let options = serde_saphyr::options! { with_snippet: false };
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        T::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
    });
    parsed.map_err(|error| describe(&error, &track.path()))
}

fn describe(error: &Error, path: &Path) -> String {
    let error = cause(error);
    let place = error.location().map(|at| format!("line {}, column {}", at.line(), at.column()));
    let place: Vec<String> = field(error, path).into_iter().chain(place).collect();
    let reason = reason(error);
    if place.is_empty() { reason } else { format!("{}: {reason}", place.join(", ")) }
}

/// Returns the error without the lines around it, and without the alias through which its value was reached.
fn cause(error: &Error) -> &Error {
    match error.without_snippet() {
        Error::AliasError { error, .. } => cause(error),
        error => error,
    }
}

/// Names the field. A key that is no field is not named.
fn field(error: &Error, path: &Path) -> Option<String> {
    let mut segments: Vec<&Segment> = path.iter().collect();
    if matches!(error, Error::SerdeUnknownField { .. } | Error::DuplicateMappingKey { .. })
        && matches!(segments.last(), Some(Segment::Map { .. }))
    {
        segments.pop();
    }
    let mut text = String::new();
    for segment in segments {
        match segment {
            Segment::Seq { index } => text += &format!("[{index}]"),
            Segment::Map { key } if text.is_empty() => text += key,
            Segment::Map { key } => text += &format!(".{key}"),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    (!text.is_empty()).then(|| format!("field {text}"))
}

fn reason(error: &Error) -> String {
    match error {
        Error::SerdeUnknownField { expected, .. } => {
            format!("there is a field that is not known; the fields are {}", expected.join(", "))
        }
        Error::SerdeMissingField { field, .. } => format!("the field {field} is missing"),
        Error::DuplicateMappingKey { .. } => "a field is there a second time; remove one".to_owned(),
        Error::SerdeInvalidType { expected, .. } => format!("the value must be {}", type_name(expected)),
        Error::SerdeInvalidValue { expected, .. } | Error::SerdeInvalidLength { expected, .. } => {
            format!("the value is not valid, it must be {}", type_name(expected))
        }
        Error::InvalidScalar { ty, .. } => format!("the value must be {}", type_name(ty)),
        Error::Unexpected { expected, .. } => format!("expected {expected}"),
        Error::NullIntoString { .. } => "the value is missing".to_owned(),
        Error::Eof { .. } => "the file is empty, or ends within a value".to_owned(),
        Error::MultipleDocuments { .. } => "there is a second document; remove it".to_owned(),
        Error::Message { msg, .. } => {
            let from = |start: &str| msg.rfind(start).and_then(|start| msg.get(start..));
            match (from(TARGET_FIELD), from(NOT_A_NAME)) {
                (Some(problem), _) => problem.to_owned(),
                (None, Some(remedy)) => format!("the value {remedy}"),
                (None, None) => invalid_yaml(),
            }
        }
        _ => invalid_yaml(),
    }
}

fn invalid_yaml() -> String {
    "this is not valid YAML: check the indentation (spaces, no tabs), quotes, and the space after each colon".to_owned()
}

/// Says the name of a type in the words of a file.
fn type_name(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "i64" | "usize" => "a whole number",
        _ if expected.starts_with("struct ") => "a mapping with fields",
        _ => expected,
    }
}
