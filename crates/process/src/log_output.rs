//! Where log lines go: stderr, whatever becomes of it.
//!
//! Problem: stderr may be a file on a full disk, a pipe whose reader has ended, or one whose reader does not read any
//! more. A process that takes telemetry in must neither end nor fail nor wait because a line cannot be written. Model:
//! such a line is lost and counted.

use std::io::{Result, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

/// Longest wait for a reader that has fallen behind, in ms; not repeated until it reads again.
const MAX_WAIT_MS: u16 = 100;
/// Bytes that a pipe takes without waiting once it is ready (`PIPE_BUF`).
const PIECE_BYTES: usize = 4096;

/// Lines that could not be written since the process started.
static LOST_LINES: AtomicU64 = AtomicU64::new(0);
/// Whether the reader of stderr did not read in time.
static IS_STALLED: AtomicBool = AtomicBool::new(false);

/// Writes log lines to stderr. Never fails, and waits for no longer than a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, line: &[u8]) -> Result<usize> {
        write_or_count(&mut std::io::stderr().lock(), line, &IS_STALLED);
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

fn write_or_count(output: &mut (impl Write + AsFd), line: &[u8], is_stalled: &AtomicBool) {
    for piece in line.chunks(PIECE_BYTES) {
        if !is_ready(output, is_stalled) || output.write_all(piece).is_err() {
            LOST_LINES.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}

/// Whether a write would not wait. A file is always ready, and so is a pipe without a reader: the write fails.
fn is_ready(output: &impl AsFd, is_stalled: &AtomicBool) -> bool {
    let wait_ms = if is_stalled.load(Ordering::Relaxed) { 0 } else { MAX_WAIT_MS };
    let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
    let ready = match poll(&mut descriptors, wait_ms) {
        Err(Errno::EINTR) => poll(&mut descriptors, 0_u16),
        polled => polled,
    };
    let is_ready = ready.is_ok_and(|count| count > 0);
    is_stalled.store(!is_ready, Ordering::Relaxed);
    is_ready
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let is_stalled = AtomicBool::new(false);
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let before = lost_lines();
        write_or_count(&mut full, b"line\n", &is_stalled);
        assert_eq!(lost_lines(), before + 1);
        let (reader, mut closed) = std::io::pipe().unwrap();
        drop(reader);
        write_or_count(&mut closed, b"line\n", &is_stalled);
        assert_eq!(lost_lines(), before + 2);
        write_or_count(&mut tempfile::tempfile().unwrap(), b"line\n", &is_stalled);
        assert_eq!(lost_lines(), before + 2);
        // A reader that stops reading: the line that fills the pipe waits for a moment, further ones do not.
        let (mut stopped, mut pipe) = std::io::pipe().unwrap();
        let line = [b'x'; 3000];
        let (started, mut written) = (Instant::now(), 0);
        while lost_lines() == before + 2 {
            write_or_count(&mut pipe, &line, &is_stalled);
            written += 1;
            assert!(written < 1000, "a pipe has an end");
        }
        for _ in 0..1000 {
            write_or_count(&mut pipe, &line, &is_stalled);
        }
        assert_eq!(lost_lines(), before + 2 + 1001);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let mut read = vec![0; 1 << 16];
        assert!(stopped.read(&mut read).unwrap() > 0);
        write_or_count(&mut pipe, b"line\n", &is_stalled);
        assert_eq!(lost_lines(), before + 2 + 1001, "written again");
    }
}
