//! The product does not contain names of the demo shop: detection and diagnosis must work in any environment.

use super::packages::{relative, rust_files};
use crate::workspace::root;

/// Names of the shop's services, settings and metrics.
const SHOP_NAMES: [&str; 8] = [
    "storefront",
    "payments",
    "catalogue",
    "fulfilment",
    "newsletter",
    "client_timeout_ms",
    "max_requests_per_second",
    "shop_",
];

/// Checks the rule in the product's source and the runbooks.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub(super) fn check(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join("crates"))? {
        let folder = entry?.path();
        if !["shop", "testing", "evals", "xtask"].iter().any(|name| folder.ends_with(name)) {
            files.extend(rust_files(&folder.join("src"))?);
        }
    }
    for entry in std::fs::read_dir(root().join("runbooks"))? {
        files.push(entry?.path());
    }
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        problems.extend(shop_names(&text).map(|name| format!("{} contains the shop's name {name:?}", relative(&file))));
    }
    Ok(())
}

fn shop_names(text: &str) -> impl Iterator<Item = &'static str> {
    let text = text.to_lowercase();
    SHOP_NAMES.into_iter().filter(move |name| text.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_of_the_shop() {
        assert_eq!(shop_names("if service == \"Payments\" {").collect::<Vec<_>>(), ["payments"]);
        assert_eq!(shop_names("if service == name {").count(), 0);
    }
}
