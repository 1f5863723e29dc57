//! Exit codes, and the errors that decide them.

use std::fmt;

/// Something failed, or a check has found something.
pub const FAILED: u8 = 1;
/// A person was asked to confirm, and did not.
pub const NOT_CONFIRMED: u8 = 3;
/// The server does not accept the credential, or does not allow the request (401, 403).
pub const NOT_ALLOWED: u8 = 4;
/// There is no such thing (404).
pub const NOT_FOUND: u8 = 5;
/// The state is not the one that the request is about: decided already, changed, expired (409, 410, 412).
pub const CONFLICT: u8 = 6;
/// The server does not answer, or cannot at the moment (429, 503).
pub const UNAVAILABLE: u8 = 7;
/// The reader of stdout has closed it: what a shell reports for a program that SIGPIPE has ended (128 + 13), as it ends
/// other programs.
pub const STDOUT_CLOSED: u8 = 141;

/// The list of the help text.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0    done; a check has found nothing
  1    failed, or a check has found something
  2    the arguments are wrong
  3    not confirmed
  4    not allowed: the token is missing, unknown, or its role does not suffice
  5    not found
  6    conflict: decided already, changed, or expired
  7    the server does not answer, or cannot at the moment
  141  the reader of the output has ended";

/// The server answered with an error.
#[derive(Debug)]
pub struct ServerError {
    /// HTTP status.
    pub status: u16,
    /// Code of the problem document.
    pub code: String,
    /// What is wrong, and a remedy where one is known.
    pub detail: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.detail)
    }
}

impl std::error::Error for ServerError {}

/// No server answered.
#[derive(Debug)]
pub struct NoResponse {
    /// URL of the server.
    pub url: String,
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no response from {}", self.url)
    }
}

impl std::error::Error for NoResponse {}

/// Returns the exit code for an error.
pub fn exit_code_of(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<NoResponse>().is_some() {
        return UNAVAILABLE;
    }
    match error.downcast_ref::<ServerError>().map(|error| error.status) {
        Some(401 | 403) => NOT_ALLOWED,
        Some(404) => NOT_FOUND,
        Some(409 | 410 | 412) => CONFLICT,
        Some(429 | 502..=504) => UNAVAILABLE,
        Some(_) | None => FAILED,
    }
}

/// Returns what to do about an error, where that is known.
pub fn remedy_of(error: &anyhow::Error) -> Option<&'static str> {
    if error.downcast_ref::<NoResponse>().is_some() {
        return Some("`wardroom serve` starts a server; --url or WARDROOM_URL names another one");
    }
    match error.downcast_ref::<ServerError>()?.status {
        401 => Some("--token or WARDROOM_TOKEN gives the token; `wardroom token create` makes one"),
        503 => Some("`wardroom doctor` says what is wrong with the server"),
        _ => None,
    }
}

/// Whether the same request may succeed later.
pub fn is_transient(error: &anyhow::Error) -> bool {
    exit_code_of(error) == UNAVAILABLE
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn errors_of_the_server_have_exit_codes_also_with_context() {
        let server = |status: u16| {
            let error = ServerError { status, code: "code".to_owned(), detail: "detail".to_owned() };
            Err::<(), _>(error).context("approving INC-1").unwrap_err()
        };
        let codes = [400, 401, 403, 404, 409, 410, 412, 422, 429, 500, 503].map(|status| exit_code_of(&server(status)));
        assert_eq!(codes, [1, 4, 4, 5, 6, 6, 6, 1, 7, 1, 7]);
        assert_eq!(exit_code_of(&anyhow::anyhow!("anything")), FAILED);
    }

    #[test]
    fn no_response_is_found_below_its_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = Err::<(), _>(refused).context(NoResponse { url: "http://h".to_owned() }).unwrap_err();
        assert_eq!(exit_code_of(&error), UNAVAILABLE);
        assert!(is_transient(&error));
    }

    #[test]
    fn the_help_lists_every_code() {
        for code in [FAILED, NOT_CONFIRMED, NOT_ALLOWED, NOT_FOUND, CONFLICT, UNAVAILABLE, STDOUT_CLOSED] {
            assert!(EXIT_CODES_HELP.contains(&format!("\n  {code:<5}")), "{code}");
        }
    }
}
