//! Metric names are documented constants in `metrics.rs`, from which the reference is generated.

use super::packages::{Package, relative, rust_files};

/// Checks the rule.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub(super) fn check(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages.iter().filter(|package| package.is_shipped()) {
        for file in rust_files(&package.folder.join("src"))? {
            if has_literal_name(&std::fs::read_to_string(&file)?) {
                problems.push(format!("{} has a literal metric name; use a constant of metrics.rs", relative(&file)));
            }
        }
    }
    Ok(())
}

fn has_literal_name(text: &str) -> bool {
    ["counter!(\"", "gauge!(\"", "histogram!(\""].iter().any(|literal| text.contains(literal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_literal_metric_names() {
        assert!(has_literal_name("metrics::counter!(\"requests_total\").increment(1);"));
        assert!(!has_literal_name("metrics::counter!(REQUESTS_TOTAL).increment(1);"));
    }
}
