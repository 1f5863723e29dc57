//! What the heap holds and nobody uses.

/// Gives the system back the pages of the heap on which nothing lies. An allocator keeps them for the next who asks, which suits
/// requests that come all the time and not what is made every ten minutes. Does nothing where the C library is not glibc.
///
/// Takes the heap's lock for some milliseconds on a heap of a hundred megabytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "there is no safe name for it; listed in `xtask tidy`")]
pub fn give_back() {
    // SAFETY: it takes no pointer, may be called by any thread at any time (malloc_trim(3): MT-Safe), and frees no memory that
    // was handed out.
    unsafe { nix::libc::malloc_trim(0) };
}

/// Nothing to do: the C library is not glibc.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
