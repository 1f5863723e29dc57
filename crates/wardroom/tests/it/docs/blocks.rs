//! Fenced blocks, links and headings of a Markdown page.

use std::collections::BTreeSet;
use std::fmt;

const FENCE: &str = "```";

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) page: String,
    /// Line of the opening fence.
    pub(super) line: usize,
    pub(super) language: String,
    /// The words after the language: (name, value).
    pub(super) words: Vec<(String, String)>,
    pub(super) text: String,
}

impl Block {
    /// The value of a word.
    pub(super) fn word(&self, name: &str) -> Option<&str> {
        self.words.iter().find(|(word, _)| word == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ({})", self.page, self.line, self.language)
    }
}

/// Returns the blocks of a page.
///
/// # Panics
/// Panics if a block is not closed, is indented or has no language: it would not be run.
pub(super) fn parse(page: &str, text: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (line, number) in text.lines().zip(1..) {
        if !line.trim_start().starts_with(FENCE) {
            if let Some(block) = &mut open {
                block.text.push_str(line);
                block.text.push('\n');
            }
            continue;
        }
        let info = line.strip_prefix(FENCE).unwrap_or_else(|| panic!("{page}:{number}: the fence is indented"));
        if let Some(block) = open.take() {
            assert_eq!(info, "", "{block} is not closed before line {number}");
            blocks.push(block);
            continue;
        }
        let mut words = info.split_whitespace().map(str::to_owned);
        let language = words.next().unwrap_or_else(|| panic!("{page}:{number}: the block has no language"));
        let words = words
            .map(|word| {
                word.split_once('=')
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .unwrap_or((word, String::new()))
            })
            .collect();
        open = Some(Block { page: page.to_owned(), line: number, language, words, text: String::new() });
    }
    assert_eq!(open, None, "the last block is not closed");
    blocks
}

/// The lines of a page outside blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with(FENCE);
        is_inside ^= is_fence;
        !is_inside && !is_fence
    })
}

/// Returns the targets of links to other files or headings of the repository.
pub(super) fn links(text: &str) -> Vec<String> {
    // A link may be broken over two lines, between its words or behind its text.
    let text = prose(text).collect::<Vec<_>>().join(" ");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.contains(' ')).map(str::to_owned).collect()
}

/// Returns the code in the text of a page, outside blocks.
pub(super) fn code_spans(text: &str) -> Vec<String> {
    let text = prose(text).collect::<Vec<_>>().join(" ");
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the anchors of a page's headings, as GitHub forms them.
pub(super) fn headings(text: &str) -> BTreeSet<String> {
    let titles = prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    titles
        .map(|title| {
            let kept = title.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

#[test]
fn parses_languages_words_and_text() {
    let page =
        "# A\n```sh needs=incident\nls\n```\n[b](c.md#d) [e](https://f)\n```text\n[g](h)\n```\n## Two words, 1\n";
    let found = parse("a.md", page);
    let seen: Vec<_> = found.iter().map(|block| (block.line, block.language.as_str(), block.text.as_str())).collect();
    assert_eq!(seen, [(2, "sh", "ls\n"), (6, "text", "[g](h)\n")]);
    assert_eq!((found[0].word("needs"), found[0].word("test")), (Some("incident"), None));
    assert_eq!(links(page), ["c.md#d"]);
    assert_eq!(code_spans("run `a\n--b` or `c`\n```sh\n`d`\n```\n"), ["a --b", "c"]);
    assert_eq!(headings(page), BTreeSet::from(["a".to_owned(), "two-words-1".to_owned()]));
}

#[test]
#[should_panic(expected = "a.md:1: the block has no language")]
fn a_block_without_a_language_is_refused() {
    parse("a.md", "```\nls\n```\n");
}

#[test]
#[should_panic(expected = "a.md:2: the fence is indented")]
fn an_indented_block_is_refused() {
    parse("a.md", "- x\n  ```sh\n  ls\n  ```\n");
}
