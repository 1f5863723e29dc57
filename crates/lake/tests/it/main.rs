//! Tests with many rows.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod histograms;
mod midnight;
