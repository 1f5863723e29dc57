//! Where log lines go: stderr, whatever becomes of it.
//!
//! Problem: stderr may be a file on a full disk or a pipe whose reader has ended. A process that takes telemetry in
//! must neither end nor fail because a line cannot be written. Model: such a line is lost and counted.

use std::io::{Result, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines that could not be written since the process started.
static LOST_LINES: AtomicU64 = AtomicU64::new(0);

/// Writes log lines to stderr. Never fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, line: &[u8]) -> Result<usize> {
        write_or_count(&mut std::io::stderr().lock(), line);
        Ok(line.len())
    }

    fn flush(&mut self) -> Result<()> {
        // stderr is not buffered.
        Ok(())
    }
}

/// Returns how many lines of this process could not be written.
pub fn lost_lines() -> u64 {
    LOST_LINES.load(Ordering::Relaxed)
}

fn write_or_count(output: &mut impl Write, line: &[u8]) {
    if output.write_all(line).is_err() {
        LOST_LINES.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let before = lost_lines();
        write_or_count(&mut full, b"line\n");
        assert_eq!(lost_lines(), before + 1);
        let (reader, mut closed) = std::io::pipe().unwrap();
        drop(reader);
        write_or_count(&mut closed, b"line\n");
        assert_eq!(lost_lines(), before + 2);
        write_or_count(&mut Vec::new(), b"line\n");
        assert_eq!(lost_lines(), before + 2);
    }
}
