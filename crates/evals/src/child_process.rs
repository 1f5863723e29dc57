//! Child processes that do not outlive a failed run.

use std::ops::{Deref, DerefMut};
use std::process::Child;

/// A child process that is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct ChildProcess(Child);

impl From<Child> for ChildProcess {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Deref for ChildProcess {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for ChildProcess {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // It may have exited already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test needs a process")]
    fn a_dropped_process_has_ended() {
        let child = ChildProcess::from(Command::new("sleep").arg("1000").spawn().unwrap());
        let folder = std::path::PathBuf::from(format!("/proc/{}", child.id()));
        assert!(folder.exists());
        drop(child);
        assert!(!folder.exists());
    }
}
