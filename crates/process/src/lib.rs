//! Operating system facilities shared by the server and the executor.
//!
//! ```text
//! server   ─┬─► clock    the only place that reads the wall clock
//!           ├─► heap     allocator settings; returns free heap pages to the operating system
//!           ├─► descriptors  the limit of open files
//! executor ─┼─► sandbox  the files that the process may open, and the system calls that it may make
//!           └─► crash    crash points for tests
//! query    ─┬─► worker_limits   what a query worker may use
//! worker    └─► worker_sockets  how the server reaches it
//! supervisor             starts and restarts all of them
//! data_lock              one writer per data folder
//! log_output             stderr for log lines, whatever stderr does
//! ```
//!
//! Problem: the processes do not depend on each other and need the same few facilities.
//! Model: a crate below both. Guarantee: nothing here parses external input or makes decisions.

pub mod clock;
pub mod crash;
pub mod data_lock;
pub mod descriptors;
pub mod heap;
pub mod log_output;
pub mod sandbox;
pub mod supervisor;
pub mod worker_limits;
pub mod worker_sockets;
