//! The outcome of requests, in every spelling that public instrumentations have.

use crate::context::Context;
use crate::meaning::Outcome;

/// Words for failures by the server's fault, in lower case without separators. Codes of gRPC are by name and by number:
/// those that its guide takes for the server's fault.
/// <https://grpc.io/docs/guides/status-codes/>
const FAILED: [&str; 45] = [
    "5xx",
    "error",
    "errors",
    "err",
    "fail",
    "failed",
    "failure",
    "fatal",
    "exception",
    "servererror",
    "5xxerror",
    "timeout",
    "timedout",
    "unavailable",
    "serviceunavailable",
    "internal",
    "internalerror",
    "internalservererror",
    "deadlineexceeded",
    "dataloss",
    "unimplemented",
    "resourceexhausted",
    "rejected",
    "refused",
    "crash",
    "crashed",
    "panic",
    "dropped",
    "dead",
    "deadletter",
    "nack",
    "nacked",
    "unreachable",
    "connectionrefused",
    "connectionreset",
    "connectionerror",
    "connectexception",
    "connecttimeoutexception",
    "sockettimeoutexception",
    "badgateway",
    "gatewaytimeout",
    "circuitopen",
    "overloaded",
    "statuscodeerror",
    "notok",
];

/// Words for success, and for failures by the client's fault.
const OK: [&str; 40] = [
    "ok",
    "success",
    "succeeded",
    "successful",
    "successes",
    "informational",
    "redirection",
    "clienterror",
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "none",
    "unset",
    "statuscodeok",
    "statuscodeunset",
    "cancelled",
    "canceled",
    "cancel",
    "invalidargument",
    "notfound",
    "alreadyexists",
    "permissiondenied",
    "failedprecondition",
    "outofrange",
    "unauthenticated",
    "badrequest",
    "unauthorized",
    "forbidden",
    "completed",
    "complete",
    "done",
    "processed",
    "finished",
    "ack",
    "acked",
    "hit",
    "miss",
    "skipped",
    "accepted",
];

/// Numbers of gRPC's codes that are the server's fault: unknown, deadline exceeded, resource exhausted, unimplemented,
/// internal, unavailable, data loss.
const FAILED_GRPC: [u16; 7] = [2, 4, 8, 12, 13, 14, 15];

/// Returns the outcome that the labels say. A failure in one of them counts: a call of gRPC that fails may have the
/// HTTP status 200.
pub(crate) fn outcome_of_labels(context: &Context<'_>) -> Outcome {
    let mut outcome = Outcome::Unknown;
    for label in &context.rules.code {
        match context.view.get(label).map(|value| outcome_of_value(label, value)) {
            Some(Outcome::Failed) => return Outcome::Failed,
            Some(Outcome::Ok) => outcome = Outcome::Ok,
            Some(Outcome::Unknown) | None => {}
        }
    }
    outcome
}

/// Returns the outcome that a label's value says.
pub(crate) fn outcome_of_value(label: &str, value: &str) -> Outcome {
    if is_flag(label) {
        return outcome_of_flag(label, value);
    }
    if let Ok(number) = value.parse::<u16>() {
        return outcome_of_number(label, number);
    }
    let word: String = value.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    // Elsewhere "unknown" says that there is no outcome.
    if FAILED.contains(&word.as_str()) || word == "unknown" && label.contains("code") {
        return Outcome::Failed;
    }
    if OK.contains(&word.as_str()) {
        return Outcome::Ok;
    }
    // The name of an exception's class; "error.type" is absent where requests succeed.
    let names_failure = ["error", "exception", "timeout", "failure"].iter().any(|end| word.ends_with(end));
    if names_failure || is_error_type(label) { Outcome::Failed } else { Outcome::Unknown }
}

/// Labels that say whether something holds.
fn is_flag(label: &str) -> bool {
    matches!(label, "success" | "error" | "failed" | "is_error")
}

fn is_error_type(label: &str) -> bool {
    matches!(label, "error.type" | "error_type" | "exception" | "exception_type")
}

fn outcome_of_flag(label: &str, value: &str) -> Outcome {
    let word = value.to_ascii_lowercase();
    let holds = match word.as_str() {
        "true" | "1" | "yes" => true,
        "false" | "0" | "no" | "none" | "nil" => false,
        // An error's name; of a success, nothing.
        _ => return if label == "success" { Outcome::Unknown } else { Outcome::Failed },
    };
    if holds == (label == "success") { Outcome::Ok } else { Outcome::Failed }
}

fn outcome_of_number(label: &str, number: u16) -> Outcome {
    let is_grpc = label.contains("grpc") || label.contains("rpc");
    match number {
        // Envoy's class of a code is its first digit.
        5 if label.contains("class") => Outcome::Failed,
        1..=4 if label.contains("class") => Outcome::Ok,
        500..=599 => Outcome::Failed,
        // Envoy and Istio count requests that the client gave up as 0.
        0 if label.contains("response_code") => Outcome::Ok,
        100..=499 => Outcome::Ok,
        code if is_grpc && FAILED_GRPC.contains(&code) => Outcome::Failed,
        0..=16 if is_grpc => Outcome::Ok,
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_failure_is_known() {
        for (label, value) in [
            ("code", "500"),
            ("http_status_code", "503"),
            ("status_class", "5xx"),
            ("status", "5XX"),
            ("response_code", "504"),
            ("grpc_code", "Unknown"),
            ("envoy_response_code_class", "5"),
            ("grpc_code", "Unavailable"),
            ("grpc_code", "DEADLINE_EXCEEDED"),
            ("grpc_status", "14"),
            ("rpc_grpc_status_code", "13"),
            ("outcome", "SERVER_ERROR"),
            ("result", "error"),
            ("classification", "failure"),
            ("error", "true"),
            ("success", "false"),
            ("error_type", "java.net.ConnectException"),
            ("error.type", "timeout"),
            ("status", "STATUS_CODE_ERROR"),
        ] {
            assert_eq!(outcome_of_value(label, value), Outcome::Failed, "{label}={value}");
        }
    }

    #[test]
    fn success_and_the_clients_fault_are_no_failures() {
        for (label, value) in [
            ("code", "200"),
            ("code", "404"),
            ("status", "4xx"),
            ("grpc_code", "OK"),
            ("grpc_code", "NotFound"),
            ("grpc_status", "0"),
            ("grpc_status", "5"),
            ("envoy_response_code_class", "2"),
            ("outcome", "SUCCESS"),
            ("outcome", "CLIENT_ERROR"),
            ("error", "false"),
            ("success", "true"),
            ("result", "ok"),
        ] {
            assert_eq!(outcome_of_value(label, value), Outcome::Ok, "{label}={value}");
        }
        assert_eq!(outcome_of_value("status", "active"), Outcome::Unknown);
        assert_eq!(outcome_of_value("code", "7"), Outcome::Unknown);
    }
}
