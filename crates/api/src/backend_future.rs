//! The type of the closures that the composition root supplies.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use wardroom_edge::Problem;

/// The future of a backend call.
pub type BackendFuture<T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + Send>>;

/// A closure that answers a question.
pub type Ask<A, T> = Arc<dyn Fn(A) -> BackendFuture<T> + Send + Sync>;
