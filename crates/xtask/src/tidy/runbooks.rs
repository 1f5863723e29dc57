//! The files of `runbooks/` and the built-in list in the knowledge crate correspond one to one.

use anyhow::Context;

use crate::workspace::root;

/// The built-in list.
const BUILTIN_LIST_FILE: &str = "crates/knowledge/src/builtin.rs";

/// Checks the rule.
///
/// # Errors
/// Returns an error if the list or the folder cannot be read.
pub(super) fn check(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let list = std::fs::read_to_string(root().join(BUILTIN_LIST_FILE)).context(BUILTIN_LIST_FILE)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("runbooks"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    compare(&list, &names, problems);
    Ok(())
}

fn compare(list: &str, names: &[String], problems: &mut Vec<String>) {
    let missing = names.iter().filter(|name| !list.contains(&format!("runbooks/{name}\"")));
    problems.extend(missing.map(|name| format!("runbooks/{name} is not in {BUILTIN_LIST_FILE}")));
    if list.matches("include_str!").count() > names.len() {
        problems.push(format!("{BUILTIN_LIST_FILE} lists a runbook that is not in runbooks/"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_runbook_that_is_not_listed_and_an_entry_without_a_file() {
        let mut problems = Vec::new();
        let list = "include_str!(\"../../../runbooks/a.md\"), include_str!(\"../../../runbooks/gone.md\")";
        compare(list, &["a.md".to_owned()], &mut problems);
        compare(list, &["a.md".to_owned(), "b.md".to_owned()], &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
