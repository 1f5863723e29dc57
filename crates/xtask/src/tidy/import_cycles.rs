//! The files of a crate have no import cycles.
//!
//! A file imports from another one if it names an item that is defined there, by `use` or by a path; re-exports are
//! followed to the definition, and re-exporting alone is no import. `foo.rs` and `foo/bar.rs` are treated like any
//! other pair: they form a cycle if the child uses items that the parent defines and the parent uses items of the
//! child. Tests are left out.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::module_tree::{ModuleTree, Target};
use super::packages::{Package, relative};

/// Importing file → imported file → name of an imported item.
type Imports = BTreeMap<PathBuf, BTreeMap<PathBuf, String>>;

/// Checks the rule.
pub(super) fn check(packages: &[Package], problems: &mut Vec<String>) {
    for package in packages {
        for root in ["src/lib.rs", "src/main.rs"] {
            let root = package.folder.join(root);
            if !root.exists() {
                continue;
            }
            let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
            match ModuleTree::read(&root, &read) {
                Ok(tree) => {
                    problems.extend(cycles(&imports(&tree)).iter().map(|cycle| format!("import cycle: {cycle}")))
                }
                Err(error) => problems.push(format!("{}: {error:#}", package.name)),
            }
        }
    }
}

fn imports(tree: &ModuleTree) -> Imports {
    let mut imports = Imports::new();
    for (module, reference) in tree.references() {
        let Some(Target::Item(file)) = tree.resolve(module, &reference.path) else { continue };
        let from = tree.file(module);
        if *from != file {
            let name = reference.path.join("::");
            imports.entry(from.clone()).or_default().entry(file).or_insert(name);
        }
    }
    imports
}

/// One description for each group of files that import from each other: a shortest cycle.
fn cycles(imports: &Imports) -> Vec<String> {
    let (mut cycles, mut reported) = (Vec::new(), Vec::new());
    for start in imports.keys() {
        if reported.contains(start) {
            continue;
        }
        let Some(cycle) = shortest_cycle(imports, start) else { continue };
        let mut text = relative(start);
        for (from, to) in cycle.iter().zip(cycle.iter().skip(1)) {
            text.push_str(&format!(" -> {} ({})", relative(to), imports[from][to]));
        }
        cycles.push(text);
        reported.extend(cycle);
    }
    cycles
}

/// The files of a shortest cycle from `start` to `start`.
fn shortest_cycle(imports: &Imports, start: &PathBuf) -> Option<Vec<PathBuf>> {
    let mut previous: BTreeMap<&PathBuf, &PathBuf> = BTreeMap::new();
    let mut pending = VecDeque::from([start]);
    while let Some(file) = pending.pop_front() {
        for next in imports.get(file).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut cycle = vec![start.clone(), file.clone()];
                let mut current = file;
                while current != start {
                    current = previous[current];
                    cycle.push(current.clone());
                }
                cycle.reverse();
                if file == start {
                    cycle.pop();
                }
                return Some(cycle);
            }
            if !previous.contains_key(next) {
                previous.insert(next, file);
                pending.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles_of(files: &[(&str, &str)]) -> Vec<String> {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| anyhow::anyhow!("{}", path.display()))
        };
        cycles(&imports(&ModuleTree::read(Path::new("src/lib.rs"), &read).unwrap()))
    }

    #[test]
    fn refuses_two_files_that_import_from_each_other() {
        let found = cycles_of(&[
            ("src/lib.rs", "mod a;\nmod b;"),
            ("src/a.rs", "use crate::b::B;\npub(crate) struct A;\nfn f(_: B) {}"),
            ("src/b.rs", "pub(crate) struct B;\nfn g(_: crate::a::A) {}"),
        ]);
        assert_eq!(found, ["src/a.rs -> src/b.rs (crate::b::B) -> src/a.rs (crate::a::A)"]);
    }

    #[test]
    fn follows_re_exports_at_the_crate_root() {
        let found = cycles_of(&[
            ("src/lib.rs", "mod a;\nmod b;\npub use a::A;"),
            ("src/a.rs", "use crate::b;\npub struct A;\nfn f() { b::run(); }"),
            ("src/b.rs", "pub(crate) fn run() -> crate::A { crate::A }"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_parent_may_use_a_child_that_does_not_use_it() {
        let parent = "mod child;\nuse child::Child;\npub(crate) struct Parent(Child);";
        let files = |child: &'static str| {
            cycles_of(&[("src/lib.rs", "mod parent;"), ("src/parent.rs", parent), ("src/parent/child.rs", child)])
        };
        assert!(files("pub(super) struct Child;").is_empty());
        assert_eq!(files("use super::Parent;\npub(super) struct Child;\nfn f(_: Parent) {}").len(), 1);
    }

    #[test]
    fn ignores_test_code() {
        let found = cycles_of(&[
            ("src/lib.rs", "mod a;\nmod b;"),
            ("src/a.rs", "use crate::b::B;\npub(crate) struct A(B);"),
            ("src/b.rs", "pub(crate) struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; fn t(_: A) {} }"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
