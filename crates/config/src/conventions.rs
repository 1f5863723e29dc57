//! The user's conventions: files that say what the series of an instrumentation mean.

use std::path::{Path, PathBuf};

use wardroom_domain::EntityRules;
use wardroom_domain::config_check::ConfigProblems;
use wardroom_signals::{Catalog, UserConvention};

/// Name of the setting.
const FIELD: &str = "entities.conventions";
/// Maximum size of a file, in bytes; the largest built-in one has 8 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Maximum number of files.
const MAX_FILES: usize = 1000;

/// Adds what is wrong with the conventions.
pub(crate) fn check(rules: &EntityRules, problems: &mut ConfigProblems) {
    if let Err(reason) = read_catalog(rules) {
        problems.add(FIELD, reason);
    }
}

/// Returns the catalog with the user's conventions. The error has reason and remedy.
pub(crate) fn read_catalog(rules: &EntityRules) -> Result<Catalog, String> {
    let mut conventions = Vec::new();
    for path in &rules.conventions {
        for file in files_of(path)? {
            if conventions.len() >= MAX_FILES {
                return Err(format!("there are more than {MAX_FILES} files; name fewer"));
            }
            let size = std::fs::metadata(&file).map_err(|error| unreadable(&file, &error))?.len();
            if size > MAX_FILE_BYTES {
                return Err(format!("{} has {size} bytes, more than {MAX_FILE_BYTES}; split it", file.display()));
            }
            let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
            conventions.push(UserConvention { name: file.display().to_string(), text });
        }
    }
    Catalog::new(rules, &conventions).map_err(|error| format!("{error}; see docs/signals.md"))
}

/// Returns the file itself, or the files of a folder that end in `.yaml`, by name.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut files = files.map_err(|error| unreadable(path, &error))?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read ({error}); correct the path or its permissions", path.display())
}

#[cfg(test)]
mod tests {
    use wardroom_domain::Labels;

    use super::*;

    #[test]
    fn conventions_of_a_folder_count_and_errors_name_the_file() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("conventions");
        std::fs::create_dir(&folder).unwrap();
        let rules = EntityRules { conventions: vec![folder.clone()], ..EntityRules::default() };
        let series = "series:\n  - metric: boiler_pressure\n    signal: saturation\n    part: value\n";
        let text = format!("convention: boiler\ntitle: t\nsource: s\n{series}");
        std::fs::write(folder.join("boiler.yaml"), text).unwrap();
        std::fs::write(folder.join("notes.txt"), "not read").unwrap();
        let catalog = read_catalog(&rules).unwrap();
        let labels = Labels::of(&[("__name__", "boiler_pressure"), ("job", "boiler")]);
        assert_eq!(catalog.meaning(&labels, None).uses.len(), 1);
        std::fs::write(folder.join("wrong.yaml"), "convention: [").unwrap();
        assert!(read_catalog(&rules).unwrap_err().contains("wrong.yaml"));
        std::fs::remove_dir_all(&folder).unwrap();
        let mut problems = ConfigProblems::default();
        check(&rules, &mut problems);
        let line = problems.into_lines().remove(0);
        assert!(line.starts_with("field entities.conventions: ") && line.contains("cannot be read"), "{line}");
    }
}
