//! Who may enter, on the state database: users, sessions, passkeys, and the steps of a login.
//!
//! ```text
//! api (routes) ─► AccessService ─► identity (decisions) ─► store (rows + audit entry, one transaction)
//!                      │
//!                      └─► SessionTable in memory ◄─ poll of the tables, every half second
//! ```
//!
//! Problem: a decision about a credential, its row and its audit entry belong together, and every replica has to know
//! of a revocation within a second. Model: each step is decided by `identity`, written with its audit entry, and read
//! again by a poll. Guarantee: while the tables cannot be read, no session is accepted.

#![forbid(unsafe_code)]

mod approvers;
mod audit;
mod backend;
mod key_requests;
mod passkeys;
mod poll;
mod problems;
mod providers;
mod service;
mod session_states;
mod users;

pub use key_requests::KeyRequests;
pub use poll::run;
pub use service::{AccessService, new_service};
