//! Progress bar of backup and restore.

use indicatif::{ProgressBar, ProgressStyle};
use wardroom_roles::backup::CopyProgress;

/// Returns a progress bar that counts bytes.
pub(crate) fn copy_progress_bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{spinner} {bytes} {binary_bytes_per_sec} {wide_msg}")?;
    Ok(ProgressBar::no_length().with_style(style))
}

/// Shows the progress of a copy.
pub(crate) fn show_progress(bar: &ProgressBar, progress: CopyProgress<'_>) {
    match progress {
        CopyProgress::File(name) => bar.set_message(name.to_owned()),
        CopyProgress::Bytes(bytes) => bar.inc(bytes),
        CopyProgress::Restarted => bar.reset(),
    }
}
