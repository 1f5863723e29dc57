//! The modules of a crate: their files, items, imports and the paths that occur in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::rust_tokens::{Kind, Token, group_length, tokens, without_comments_and_tests};

/// Maximum number of steps to resolve a path: re-exports may form a cycle.
const MAX_STEPS: usize = 64;
/// Keywords before the name of an item.
const ITEM_KEYWORDS: [&str; 9] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro"];

/// A path that occurs in a module, by `use` or in code.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) path: Vec<String>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Module(usize),
    /// The file that defines the item.
    Item(PathBuf),
}

/// One name that a `use` brings into scope.
#[derive(Debug)]
struct Import {
    /// The local name; `None` for `*`.
    name: Option<String>,
    path: Vec<String>,
    public: bool,
}

#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    /// The folder with the files of its child modules.
    folder: PathBuf,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    imports: Vec<Import>,
    paths: Vec<Vec<String>>,
    /// Identifiers outside of `use`.
    words: BTreeSet<String>,
}

/// The modules of a crate; the first is its root.
#[derive(Debug, Default)]
pub(super) struct ModuleTree {
    modules: Vec<Module>,
}

impl ModuleTree {
    /// Reads all modules from the crate's root file on.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub(super) fn read(root: &Path, read: &dyn Fn(&Path) -> anyhow::Result<String>) -> anyhow::Result<Self> {
        let folder = root.parent().unwrap_or(root).to_owned();
        let mut tree = Self { modules: vec![Module { file: root.to_owned(), folder, ..Module::default() }] };
        // Child modules with a file of their own are appended while their parents are parsed.
        let mut pending = vec![0];
        while let Some(module) = pending.pop() {
            let source = read(&tree.modules[module].file)?;
            let all = tokens(&source);
            tree.parse(module, &without_comments_and_tests(&all), &mut pending);
        }
        Ok(tree)
    }

    /// The file of a module.
    pub(super) fn file(&self, module: usize) -> &PathBuf {
        &self.modules[module].file
    }

    /// Every path that a module uses. A re-exported name counts only if the module also uses it itself.
    pub(super) fn references(&self) -> Vec<(usize, Reference)> {
        let mut references = Vec::new();
        for (position, module) in self.modules.iter().enumerate() {
            let used = |import: &&Import| match &import.name {
                Some(name) => !import.public || module.words.contains(name),
                None => false,
            };
            let imported = module.imports.iter().filter(used).map(|import| &import.path);
            references.extend(imported.chain(&module.paths).map(|path| (position, Reference { path: path.clone() })));
        }
        references
    }

    /// Follows a path from a module to the definition; `None` if it leads out of the crate.
    pub(super) fn resolve(&self, module: usize, path: &[String]) -> Option<Target> {
        self.resolve_within(module, path, MAX_STEPS)
    }

    fn resolve_within(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        let depth = depth.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend(0, rest, depth),
            "self" => self.descend(module, rest, depth),
            "super" => {
                let parent = self.modules[module].parent?;
                if rest.first().is_some_and(|next| next == "super") {
                    return self.resolve_within(parent, rest, depth);
                }
                self.descend(parent, rest, depth)
            }
            name => {
                if let Some(child) = self.modules[module].children.get(name) {
                    return self.descend(*child, rest, depth);
                }
                let import = self.modules[module].imports.iter().find(|import| import.name.as_deref() == Some(name))?;
                // `use name;` of another crate would lead to itself.
                let same = import.path.len() == 1 && import.path[0] == name;
                if same {
                    return None;
                }
                self.resolve_import(module, import, rest, depth)
            }
        }
    }

    fn descend(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        let depth = depth.checked_sub(1)?;
        let Some((name, rest)) = path.split_first() else { return Some(Target::Module(module)) };
        let found = &self.modules[module];
        if let Some(child) = found.children.get(name) {
            return self.descend(*child, rest, depth);
        }
        if found.items.contains(name) {
            return Some(Target::Item(found.file.clone()));
        }
        if let Some(import) = found.imports.iter().find(|import| import.name.as_ref() == Some(name)) {
            return self.resolve_import(module, import, rest, depth);
        }
        let globs = found.imports.iter().filter(|import| import.name.is_none());
        globs
            .filter_map(|glob| match self.resolve_within(module, &glob.path, depth)? {
                Target::Module(target) if target != module => self.descend(target, path, depth),
                _ => None,
            })
            .next()
    }

    fn resolve_import(&self, module: usize, import: &Import, rest: &[String], depth: usize) -> Option<Target> {
        match self.resolve_within(module, &import.path, depth)? {
            Target::Module(target) => self.descend(target, rest, depth),
            item @ Target::Item(_) => Some(item),
        }
    }

    fn parse(&mut self, module: usize, code: &[Token<'_>], pending: &mut Vec<usize>) {
        let (mut position, mut depth) = (0, 0_usize);
        let mut public = false;
        while position < code.len() {
            let token = &code[position];
            if token.is_punctuation("{") {
                depth += 1;
            } else if token.is_punctuation("}") {
                depth = depth.saturating_sub(1);
            } else if token.is_word("pub") {
                public = true;
                position += 1;
                position += if code.get(position).is_some_and(|next| next.is_punctuation("(")) {
                    group_length(&code[position..])
                } else {
                    0
                };
                continue;
            } else if token.is_word("use") && depth_starts_statement(code, position) {
                let end = statement_end(code, position);
                let mut imports = Vec::new();
                use_tree(&code[position + 1..end], &[], public, &mut imports);
                self.modules[module].imports.extend(imports);
                public = false;
                position = end;
                continue;
            } else if token.is_word("mod")
                && depth == 0
                && let Some(name) = code.get(position + 1).filter(|next| next.kind == Kind::Identifier)
            {
                position += self.parse_module(module, name.text, &code[position + 2..], pending) + 2;
                public = false;
                continue;
            } else if token.kind == Kind::Identifier {
                if depth == 0 && ITEM_KEYWORDS.contains(&token.text) {
                    let name =
                        code[position + 1..].iter().find(|next| next.kind == Kind::Identifier && next.text != "mut");
                    self.modules[module].items.extend(name.map(|name| name.text.to_owned()));
                } else if depth == 0 && token.text == "macro_rules" {
                    self.modules[module].items.extend(code.get(position + 2).map(|name| name.text.to_owned()));
                }
                public = false;
                let path = path_from(code, position);
                self.modules[module].words.insert(token.text.to_owned());
                let length = path.len() * 2 - 1;
                if path.len() > 1 {
                    self.modules[module].paths.push(path);
                }
                position += length;
                continue;
            } else {
                public = false;
            }
            position += 1;
        }
    }

    /// Adds a child module; returns the number of tokens of its block or semicolon.
    fn parse_module(&mut self, parent: usize, name: &str, rest: &[Token<'_>], pending: &mut Vec<usize>) -> usize {
        let child = self.modules.len();
        let folder = self.modules[parent].folder.join(name);
        let inline = rest.first().is_some_and(|next| next.is_punctuation("{"));
        let file = match inline {
            true => self.modules[parent].file.clone(),
            false => self.modules[parent].folder.join(format!("{name}.rs")),
        };
        self.modules.push(Module { file, folder, parent: Some(parent), ..Module::default() });
        self.modules[parent].children.insert(name.to_owned(), child);
        if !inline {
            pending.push(child);
            return 1;
        }
        let length = group_length(rest);
        self.parse(child, &rest[1..length - 1], pending);
        length
    }
}

/// `use` starts a statement, unlike in `impl Trait + use<'a>`.
fn depth_starts_statement(code: &[Token<'_>], position: usize) -> bool {
    code.get(position + 1).is_some_and(|next| !next.is_punctuation("<"))
}

fn statement_end(code: &[Token<'_>], position: usize) -> usize {
    code[position..].iter().position(|token| token.is_punctuation(";")).map_or(code.len(), |length| position + length)
}

/// The identifiers joined by `::` from here on.
fn path_from(code: &[Token<'_>], position: usize) -> Vec<String> {
    let mut path = vec![code[position].text.to_owned()];
    let mut next = position + 1;
    while let (Some(separator), Some(name)) = (code.get(next), code.get(next + 1)) {
        if !separator.is_punctuation("::") || name.kind != Kind::Identifier {
            break;
        }
        path.push(name.text.to_owned());
        next += 2;
    }
    path
}

/// Collects the names of a `use` tree.
fn use_tree(code: &[Token<'_>], prefix: &[String], public: bool, imports: &mut Vec<Import>) {
    let mut path = prefix.to_vec();
    let mut position = 0;
    while let Some(token) = code.get(position) {
        if token.is_punctuation("{") {
            let group = &code[position + 1..position + group_length(&code[position..]) - 1];
            for part in split_at_commas(group) {
                use_tree(part, &path, public, imports);
            }
            return;
        }
        if token.is_punctuation("*") {
            imports.push(Import { name: None, path, public });
            return;
        }
        if token.is_word("as") {
            let name = code.get(position + 1).map(|name| name.text.to_owned());
            imports.push(Import { name, path, public });
            return;
        }
        let own_name = token.text == "self" && !path.is_empty();
        if token.kind == Kind::Identifier && !own_name {
            path.push(token.text.to_owned());
        }
        position += 1;
    }
    imports.push(Import { name: path.last().cloned(), path, public });
}

fn split_at_commas<'a, 'b>(code: &'b [Token<'a>]) -> Vec<&'b [Token<'a>]> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (position, token) in code.iter().enumerate() {
        if token.is_punctuation("{") {
            depth += 1;
        } else if token.is_punctuation("}") {
            depth = depth.saturating_sub(1);
        } else if token.is_punctuation(",") && depth == 0 {
            parts.push(&code[start..position]);
            start = position + 1;
        }
    }
    if start < code.len() {
        parts.push(&code[start..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_nested_imports_aliases_and_re_exports() {
        let read = |path: &Path| -> anyhow::Result<String> {
            Ok(match path.to_str() {
                Some("src/lib.rs") => "mod a;\nmod b;\npub use a::{deep::{self, Item}, other as renamed};",
                Some("src/a.rs") => "pub(crate) mod deep;\npub fn other() {}",
                Some("src/a/deep.rs") => "pub struct Item;\npub const LIMIT: usize = 1;",
                _ => "use std::fmt;",
            }
            .to_owned())
        };
        let tree = ModuleTree::read(Path::new("src/lib.rs"), &read).unwrap();
        let b = tree.modules.iter().position(|module| module.file == Path::new("src/b.rs")).unwrap();
        let target = |path: &str| tree.resolve(b, &path.split("::").map(str::to_owned).collect::<Vec<_>>());
        let deep = Some(Target::Item("src/a/deep.rs".into()));
        assert_eq!(target("crate::Item"), deep);
        assert_eq!(target("super::deep::LIMIT"), deep);
        assert_eq!(target("crate::renamed"), Some(Target::Item("src/a.rs".into())));
        assert_eq!(target("fmt::Display"), None);
        assert_eq!(target("std::fmt"), None);
    }
}
