//! Small estates with a known cause.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

mod estate;
mod mechanisms;
mod ranking;
