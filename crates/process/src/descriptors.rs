//! The limit of open file descriptors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as the process may, and returns it. Each connection needs a descriptor, and the usual soft
/// limit of 1024 dates from `select`, which this program does not use.
pub fn raise_descriptor_limit() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    usize::try_from(if raised.is_ok() { hard } else { soft }).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_the_soft_limit_to_the_hard_one() {
        let limit = raise_descriptor_limit();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, limit as u64), (hard, hard));
    }
}
