//! Asking the tables.

use std::io::{Read, Write};

use super::{Done, client};
use crate::options::{Remote, TableFormat};

/// One query, its answer as it came.
pub(crate) fn sql(query: &str, format: TableFormat, remote: &Remote) -> Done {
    let mut text = query.to_owned();
    if query == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text)?;
    }
    let answer = client(remote).post_text(&format!("/api/v1/sql?format={}", format.as_str()), &text)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&answer)?;
    if matches!(format, TableFormat::Json) {
        out.write_all(b"\n")?;
    }
    Ok(std::process::ExitCode::SUCCESS)
}
