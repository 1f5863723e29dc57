//! The server's heap: settings of glibc's malloc, and trimming after large temporary allocations.
//!
//! Everything that tunes the allocator is in this file. To switch a setting off, delete its line in
//! [`SERVER_ALLOCATOR_SETTINGS`] or [`WORKER_ALLOCATOR_SETTINGS`].

/// A variable of glibc's malloc that the supervisor sets for the processes it starts, unless the variable is set
/// already.
#[derive(Clone, Copy, Debug)]
pub struct AllocatorSetting {
    /// Name of the environment variable (mallopt(3)).
    pub variable: &'static str,
    /// Its value.
    pub value: &'static str,
    /// What it is for.
    pub reason: &'static str,
}

impl AllocatorSetting {
    const fn new(variable: &'static str, value: &'static str, reason: &'static str) -> Self {
        Self { variable, value, reason }
    }
}

/// The settings in use. Paired runs of `bench intake` (100 000 series, with the lake): 43 % more memory per series with
/// a threshold that glibc adapts. A fixed one leaves that of trimming at 128 KiB, so that the heap shrinks and grows
/// with each request: 160 000 to 230 000 page faults for 6 million samples instead of 28 000, and 0.7 to 0.8 seconds in
/// the kernel instead of 0.5.
///
/// With few arenas, a thread of low priority that loses its processor while it holds an arena's lock holds up the
/// thread that acknowledges. `bench hostile-queries` (selectors): p99 of acknowledgements 39 ms with one arena and
/// 13 ms with eight. More arenas cost 4 to 5 % of memory.
pub const SERVER_ALLOCATOR_SETTINGS: &[AllocatorSetting] = &[
    AllocatorSetting::new("MALLOC_ARENA_MAX", "32", "no thread waits for another one's allocations"),
    MMAP_THRESHOLD,
    AllocatorSetting::new("MALLOC_TRIM_THRESHOLD_", "1048576", "the heap does not shrink and grow with each request"),
];

/// The settings of query workers, whose address space is limited.
pub const WORKER_ALLOCATOR_SETTINGS: &[AllocatorSetting] = &[
    AllocatorSetting::new("MALLOC_ARENA_MAX", "1", "batches are allocated on one thread and freed on another"),
    MMAP_THRESHOLD,
];

const MMAP_THRESHOLD: AllocatorSetting = AllocatorSetting::new(
    "MALLOC_MMAP_THRESHOLD_",
    "524288",
    "columns of a flush are unmapped as soon as they are freed",
);

/// Returns free pages inside the heap to the operating system. Called after a lake flush, whose buffers leave holes
/// that glibc would keep until the next flush minutes later. Does nothing where the C library is not glibc.
///
/// Holds the heap's lock for a few milliseconds on a heap of a hundred megabytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "malloc_trim has no safe wrapper; listed in `cargo xtask tidy`")]
pub fn trim_heap() {
    // SAFETY: malloc_trim takes no pointer, may be called from any thread at any time (malloc_trim(3): MT-Safe), and
    // frees no memory that is allocated.
    unsafe { nix::libc::malloc_trim(0) };
}

/// Does nothing: the C library is not glibc.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn trim_heap() {}
