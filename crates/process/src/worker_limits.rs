//! What a query worker may use: address space, processor time and descriptors.
//!
//! Problem: no check of a query's text foresees all that it costs, and a limit inside the program is passed by code
//! that does not ask it. Model: the kernel limits the process. Guarantee: whatever a query does, it ends its own
//! process at most. Which files the process may open is for its sandbox.

use nix::sys::resource::{RLIM_INFINITY, Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

/// Address space of a worker beside the program itself and the memory of its query (`lake.query.memory-bytes`): stacks
/// of threads, table logs, buffers, and the encoded result.
const OVERHEAD_BYTES: u64 = 512 << 20;
/// Maximum number of open descriptors of a worker: files of tables, and connections to an object store.
const MAX_DESCRIPTORS: u64 = 1024;
/// Niceness of queries: ingestion and its acknowledgements go first.
const NICENESS: i32 = 10;

/// Limits the address space, the descriptors and the priority of this process. Call before starting threads.
///
/// # Errors
/// Returns an error if a limit cannot be set.
pub fn limit_query_worker(memory_bytes: u64) -> std::io::Result<()> {
    // A process that runs out of memory must end at once, not write a core file first.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    lower_limit(Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS)?;
    let memory = address_space_bytes()?.saturating_add(OVERHEAD_BYTES).saturating_add(memory_bytes);
    lower_limit(Resource::RLIMIT_AS, memory)?;
    lower_priority(NICENESS)
}

/// Lowers the priority of the calling thread, and of those that it starts, to a niceness of 0 to 19.
///
/// # Errors
/// Returns an error if the kernel refuses it.
pub fn lower_priority(niceness: i32) -> std::io::Result<()> {
    let current = rustix::process::getpriority_process(None)?;
    Ok(rustix::process::setpriority_process(None, current.max(niceness))?)
}

/// Sets a limit, unless there is a lower one.
fn lower_limit(resource: Resource, limit: u64) -> std::io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    Ok(setrlimit(resource, limit.min(hard), limit.min(hard))?)
}

/// Returns the size of this process' address space.
fn address_space_bytes() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages = status.split_whitespace().next().and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| std::io::Error::other("/proc/self/statm has no size"))?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Lets this process use so much more processor time, in seconds; then the kernel ends it.
///
/// # Errors
/// Returns an error if the limit cannot be set.
pub fn limit_processor_time(more_seconds: u64) -> std::io::Result<()> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = (usage.user_time() + usage.system_time()).num_seconds();
    let limit = u64::try_from(used).unwrap_or_default().saturating_add(1).saturating_add(more_seconds);
    Ok(setrlimit(Resource::RLIMIT_CPU, limit, RLIM_INFINITY)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_space_is_known() {
        let bytes = address_space_bytes().unwrap();
        assert!((1 << 20..1 << 46).contains(&bytes), "{bytes}");
    }
}
