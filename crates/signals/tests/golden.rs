//! What the series of real captures mean: one snapshot a capture, with a line for each meaning and the names of what is
//! only watched against its own past.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use wardroom_domain::{Entity, Labels, MetricMetadata};
use wardroom_signals::{Catalog, SeriesMeaning, SeriesUse};

#[test]
fn every_series_of_the_captures_means_what_the_snapshot_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 15);
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        insta::assert_snapshot!(name, described(&std::fs::read_to_string(&file).unwrap()));
    }
}

#[test]
fn the_documentation_lists_every_convention_and_whether_it_is_verified() {
    let documentation = include_str!("../../../docs/signals.md");
    for (id, is_verified) in Catalog::builtin().conventions() {
        let state = if is_verified { "| yes |" } else { "| unverified |" };
        let line = documentation.lines().find(|line| line.starts_with(&format!("| `{id}` |")));
        assert!(line.is_some_and(|line| line.ends_with(state)), "{id}: {line:?}");
    }
}

/// Describes a capture: the target's labels in the first line, then types and series without values.
fn described(capture: &str) -> String {
    let target = pairs(capture.lines().next().unwrap().strip_prefix("# target ").unwrap());
    let catalog = Catalog::builtin();
    let mut types = BTreeMap::new();
    let (mut lines, mut internal, mut unknown) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for line in capture.lines().skip(1) {
        if let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(family.to_owned(), kind.to_owned());
            continue;
        }
        let (name, labels) = line.split_once('{').map_or((line, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
        let mut all = pairs(labels);
        all.extend(target.iter().cloned());
        all.push(("__name__".to_owned(), name.to_owned()));
        let metadata = metadata(&types, name);
        let meaning = catalog.meaning(&Labels::new(all), metadata.as_ref());
        if meaning.uses.is_empty() {
            if meaning.is_internal { &mut internal } else { &mut unknown }.insert(name.to_owned());
        }
        lines.extend(meaning.uses.iter().map(|found| line_of(name, &meaning, found)));
    }
    let mut text = lines.into_iter().collect::<Vec<_>>().join("\n");
    for (title, names) in [("internal", internal), ("against their own past only", unknown)] {
        write!(text, "\n\n{title}: {}", names.into_iter().collect::<Vec<_>>().join(" ")).unwrap();
    }
    text
}

fn metadata(types: &BTreeMap<String, String>, name: &str) -> Option<MetricMetadata> {
    let stems = ["_bucket", "_sum", "_count"].iter().filter_map(|ending| name.strip_suffix(ending));
    let family = std::iter::once(name).chain(stems).find(|family| types.contains_key(*family))?;
    let kind = MetricMetadata::KINDS.into_iter().find(|kind| *kind == types[family]).unwrap_or("unknown");
    Some(MetricMetadata { family: family.to_owned(), kind, help: String::new(), unit: String::new() })
}

fn line_of(name: &str, meaning: &SeriesMeaning, found: &SeriesUse) -> String {
    let entity = |entity: &Entity| {
        let mut environment = entity.environment.clone();
        if !environment.is_empty() {
            environment.push(':');
        }
        format!("{}:{environment}{entity}", entity.kind)
    };
    let peer = found.peer.as_ref().map_or(String::new(), |peer| format!(" -> {}", entity(peer)));
    let resource = if found.resource.is_empty() { String::new() } else { format!("/{}", found.resource) };
    let scale = if (found.scale, found.offset) == (1.0, 0.0) {
        String::new()
    } else {
        format!(" *{}+{}", found.scale, found.offset)
    };
    let internal = if meaning.is_internal { " internal" } else { "" };
    format!(
        "{name}: {}{peer} {}{resource} {:?}{scale} {:?} {:?} of {} member {:?}{internal}",
        entity(&found.entity),
        found.kind,
        found.part,
        found.unit,
        found.direction,
        found.family,
        found.member
    )
}

/// Reads `a="b",c="d"`.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while let Some((name, tail)) = rest.split_once("=\"") {
        let (value, tail) = tail.split_once('"').unwrap();
        pairs.push((name.trim_start_matches(',').to_owned(), value.to_owned()));
        rest = tail;
    }
    pairs
}
