//! Problems that the routes return.

use std::time::Duration;

use wardroom_edge::{Problem, Status};

/// The login is not accepted; the same for an unknown name and a wrong password.
pub(crate) fn bad_login(detail: impl Into<String>) -> Problem {
    Problem::new(Status::UNAUTHORIZED, "bad_login", detail)
}

pub(crate) fn too_many_logins(wait: Duration) -> Problem {
    let seconds = wait.as_secs_f64();
    let detail = format!("too many logins have failed; try again in {seconds:.0} s");
    Problem::new(Status::TOO_MANY_REQUESTS, "too_many_logins", detail).retry_after(seconds)
}

pub(crate) fn store_problem(error: wardroom_store::Error) -> Problem {
    Problem::unavailable("store_unavailable", error.to_string())
}

pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Status::NOT_FOUND, code, detail)
}

pub(crate) fn forbidden(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Status::FORBIDDEN, code, detail)
}
