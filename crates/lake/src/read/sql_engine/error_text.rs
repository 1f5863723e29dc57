//! Turns the errors of DataFusion into sentences for people.
//!
//! Problem: its texts contain the names of its optimizer rules, Rust debug output, and a request to report a bug.
//! Model: the root cause says what is wrong; what wraps it is dropped, and the rest becomes one line.

use deltalake_core::arrow::error::ArrowError;
use deltalake_core::datafusion::common::{Column, SchemaError};
use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::sql::sqlparser::parser::ParserError;

/// Maximum number of columns that a message lists.
const MAX_LISTED_COLUMNS: usize = 40;

/// What DataFusion and Arrow write before a text to name the variant of the error.
const PREFIXES: [&str; 15] = [
    "Arrow error: ",
    "Cast error: ",
    "Compute error: ",
    "Error during planning: ",
    "Execution error: ",
    "External error: ",
    "External: ",
    "Internal error: ",
    "Invalid argument error: ",
    "Optimizer error: ",
    "Parquet error: ",
    "Parser error: ",
    "SQL error: ",
    "Schema error: ",
    "This feature is not implemented: ",
];

/// What follows the text of an internal error: a request to report it to DataFusion.
const BUG_REPORT: (&str, &str) =
    ("This issue was likely caused by a bug", "https://github.com/apache/datafusion/issues");

/// Returns what is wrong, in one line.
pub(super) fn describe(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
                format!("the statement cannot be parsed: {}", one_line(text))
            }
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply; simplify it".to_owned(),
        },
        DataFusionError::SchemaError(error, _) => describe_schema_error(error),
        DataFusionError::ArrowError(error, _) => describe_arrow_error(error),
        DataFusionError::NotImplemented(text) => format!("not supported: {}", one_line(text)),
        DataFusionError::Internal(text) => format!("the query failed in the engine: {}", one_line(text)),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::ResourcesExhausted(text) => {
            one_line(text)
        }
        other => one_line(&other.strip_backtrace()),
    }
}

/// Returns what is wrong, in one line.
pub(super) fn describe_arrow_error(error: &ArrowError) -> String {
    match error {
        ArrowError::DivideByZero => "division by zero".to_owned(),
        ArrowError::ExternalError(cause) => cause
            .downcast_ref::<DataFusionError>()
            .map_or_else(|| one_line(&cause.to_string()), |cause| one_line(&cause.strip_backtrace())),
        other => one_line(&other.to_string()),
    }
}

fn describe_schema_error(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            let suggestion =
                first.split_once("Did you mean ").map_or(String::new(), |(_, name)| format!("did you mean {name}"));
            let name = |column: &Column| column.quoted_flat_name();
            let listed: Vec<String> = valid_fields.iter().take(MAX_LISTED_COLUMNS).map(name).collect();
            let more = if valid_fields.len() > listed.len() { ", …" } else { "" };
            let known = if listed.is_empty() { String::new() } else { format!("columns: {}{more}", listed.join(", ")) };
            let hints: Vec<&str> = [suggestion.as_str(), &known].into_iter().filter(|hint| !hint.is_empty()).collect();
            let separator = if hints.is_empty() { "" } else { "; " };
            format!("there is no column {}{separator}{}", field.quoted_flat_name(), hints.join(" "))
        }
        SchemaError::AmbiguousReference { field } => {
            format!("column {} is in more than one table; write TABLE.COLUMN", field.quoted_flat_name())
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            format!("more than one column is named {name}; name them with AS")
        }
    }
}

/// Returns a text without the names of variants, a request to report a bug, and line breaks.
fn one_line(text: &str) -> String {
    if let Some(reason) = pattern_error(text) {
        return format!("the regular expression is invalid: {reason}");
    }
    let mut text = text.to_owned();
    let (start, end) = BUG_REPORT;
    while let Some((before, report)) = text.split_once(start) {
        text = format!("{before}{}", report.split_once(end).map_or("", |(_, after)| after));
    }
    let mut text = text.as_str();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    // Texts of other errors within this one.
    let text = text.replace("Error during planning: ", "").replace("Internal error: ", "");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_end_matches(['.', ' ']).to_owned()
}

/// Returns what is wrong with a regular expression, if this is the debug output of its error.
fn pattern_error(text: &str) -> Option<String> {
    if text.contains("CompiledTooBig(") {
        return Some("it is too large when compiled; shorten it or its repetitions".to_owned());
    }
    let (_, parsed) = text.split_once("regex parse error:")?;
    let (_, reason) = parsed.split_once("\nerror: ").or_else(|| parsed.split_once("\\nerror: "))?;
    let reason = reason.split(['\n', '~', ')', '"']).next().unwrap_or_default();
    Some(reason.trim_end_matches("\\n").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_cause_is_told_in_one_line_without_debug_output() {
        let plan = |text: &str| DataFusionError::Plan(text.to_owned());
        let context = |error: DataFusionError| error.context("type_coercion").context("Optimizer rule 'x' failed");
        let parser = |text: &str| {
            let error = ParserError::ParserError(text.to_owned());
            DataFusionError::SQL(Box::new(error), None)
        };
        let debug = "Regular expression did not compile: Syntax(\n~~~~\nregex parse error:\n    (\n    ^\nerror: \
                     unclosed group\n~~~~\n)";
        for (error, expected) in [
            (
                parser("Expected: SELECT, found: selec"),
                "the statement cannot be parsed: Expected: SELECT, found: selec",
            ),
            (context(plan("cannot coerce\nInt64")), "cannot coerce Int64"),
            (context(ArrowError::DivideByZero.into()), "division by zero"),
            (ArrowError::CastError("Cannot cast 'x'".into()).into(), "Cannot cast 'x'"),
            (ArrowError::ComputeError(debug.into()).into(), "the regular expression is invalid: unclosed group"),
            (
                DataFusionError::Internal("Function 'sum' failed".into()),
                "the query failed in the engine: Function 'sum' failed",
            ),
            (
                plan(
                    "errors: Internal error: a.\nThis issue was likely caused by a bug in DataFusion's code. \
                      Please help: https://github.com/apache/datafusion/issues, or b",
                ),
                "errors: a. , or b",
            ),
            (DataFusionError::NotImplemented("CREATE X".into()), "not supported: CREATE X"),
            (DataFusionError::External("external cause".into()), "external cause"),
        ] {
            assert_eq!(describe(&error), expected, "{error:?}");
        }
    }
}
