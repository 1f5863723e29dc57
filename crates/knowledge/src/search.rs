//! Search for the runbook that applies to a diagnosis.

use std::collections::BTreeMap;
use std::path::Path;

use tantivy::collector::TopDocs;
use tantivy::query::QueryParser;
use tantivy::schema::{STORED, STRING, Schema, TEXT, Value as _};
use tantivy::{Index, IndexReader, TantivyDocument, doc};
use wardroom_domain::Diagnosis;

use crate::{BUILTIN_RUNBOOKS, Config, Error, Runbook};

/// A search result.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Id of the runbook.
    pub id: String,
    /// BM25 score; meaningful only for ordering.
    pub score: f32,
}

/// All runbooks and their in-memory search index.
pub struct Library {
    runbooks: BTreeMap<String, Runbook>,
    reader: IndexReader,
    parser: QueryParser,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("runbooks", &self.runbooks.len()).finish_non_exhaustive()
    }
}

impl Library {
    /// Loads the built-in runbooks and those of the configured folder.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read or one of its runbooks is invalid.
    pub fn load(config: &Config) -> Result<Self, Error> {
        let mut runbooks = BTreeMap::new();
        for (name, text) in BUILTIN_RUNBOOKS {
            let runbook = Runbook::parse(name, text)?;
            runbooks.insert(runbook.id.clone(), runbook);
        }
        if let Some(folder) = &config.runbooks {
            for runbook in read_folder(folder)? {
                runbooks.insert(runbook.id.clone(), runbook);
            }
        }
        Self::new(runbooks.into_values())
    }

    /// Creates a library of the given runbooks.
    ///
    /// # Errors
    /// Returns an error if the index cannot be built.
    pub fn new(runbooks: impl IntoIterator<Item = Runbook>) -> Result<Self, Error> {
        let failed = |error: tantivy::TantivyError| Error::Search(error.to_string());
        let mut schema = Schema::builder();
        let id = schema.add_text_field("id", STRING | STORED);
        let [title, names, symptoms, text] =
            ["title", "names", "symptoms", "text"].map(|name| schema.add_text_field(name, TEXT));
        let index = Index::create_in_ram(schema.build());
        let mut writer = index.writer_with_num_threads(1, 15_000_000).map_err(failed)?;
        let runbooks: BTreeMap<String, Runbook> =
            runbooks.into_iter().map(|runbook| (runbook.id.clone(), runbook)).collect();
        for runbook in runbooks.values() {
            let named = [&runbook.causes, &runbook.alerts, &runbook.tags].map(|words| words.join("\n"));
            let body = format!("{}\n{}", runbook.checks.join("\n"), runbook.text);
            let document = doc!(
                id => runbook.id.clone(),
                title => runbook.title.clone(),
                names => named.join("\n"),
                symptoms => runbook.symptoms.join("\n"),
                text => body,
            );
            writer.add_document(document).map_err(failed)?;
        }
        writer.commit().map_err(failed)?;
        let reader = index.reader().map_err(failed)?;
        let mut parser = QueryParser::for_index(&index, vec![title, names, symptoms, text]);
        parser.set_field_boost(symptoms, 2.0);
        parser.set_field_boost(names, 2.0);
        parser.set_field_boost(title, 1.5);
        Ok(Self { runbooks, reader, parser })
    }

    /// Returns all runbooks, ordered by id.
    pub fn runbooks(&self) -> impl Iterator<Item = &Runbook> {
        self.runbooks.values()
    }

    /// Returns the best runbooks for a text, best first.
    ///
    /// # Errors
    /// Returns an error if the search fails.
    pub fn search(&self, query: &str, limit: usize) -> Result<Vec<Hit>, Error> {
        // Keep only letters and digits: the text may be telemetry and must not be parsed as query syntax.
        let words: String =
            query.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
        let (parsed, _) = self.parser.parse_query_lenient(&words);
        let searcher = self.reader.searcher();
        let failed = |error: tantivy::TantivyError| Error::Search(error.to_string());
        let top = searcher.search(&parsed, &TopDocs::with_limit(limit.max(1)).order_by_score()).map_err(failed)?;
        let id = searcher.schema().get_field("id").map_err(failed)?;
        let mut hits = Vec::new();
        for (score, address) in top {
            let document: TantivyDocument = searcher.doc(address).map_err(failed)?;
            let found = document.get_first(id).and_then(|value| value.as_str()).unwrap_or_default();
            hits.push(Hit { id: found.to_owned(), score });
        }
        Ok(hits)
    }

    /// Returns the best runbook that applies to the most likely cause of a diagnosis: it names the cause's rule, and of
    /// several the one whose symptoms and text are nearest to what was measured.
    ///
    /// # Errors
    /// Returns an error if the search fails.
    pub fn for_diagnosis(&self, diagnosis: &Diagnosis) -> Result<Option<&Runbook>, Error> {
        let Some(cause) = diagnosis.best() else { return Ok(None) };
        let cited = diagnosis.evidence.iter().filter(|item| cause.evidence.contains(&item.id));
        let measured: Vec<&str> = cited.map(|item| item.summary.as_str()).collect();
        let query = format!("{} {} {}", cause.rule, cause.reasoning, measured.join(" "));
        let hits = self.search(&query, self.runbooks.len())?;
        let place = |runbook: &&Runbook| {
            let found = hits.iter().position(|hit| hit.id == runbook.id).unwrap_or(hits.len());
            // One for exactly this situation goes before one for any.
            (runbook.when == crate::DeploymentCondition::Any, found)
        };
        Ok(self.runbooks.values().filter(|runbook| runbook.applies_to(cause)).min_by_key(place))
    }

    /// Returns the best runbooks for an alert: those that name it first, then by its text.
    ///
    /// # Errors
    /// Returns an error if the search fails.
    pub fn for_alert(&self, name: &str, text: &str, limit: usize) -> Result<Vec<Hit>, Error> {
        let names_it = |hit: &Hit| {
            let runbook = self.runbooks.get(&hit.id);
            runbook.is_some_and(|runbook| runbook.alerts.iter().any(|alert| alert.eq_ignore_ascii_case(name)))
        };
        let mut hits = self.search(&format!("{} {text}", words_of(name)), self.runbooks.len())?;
        hits.sort_by_key(|hit| !names_it(hit));
        hits.truncate(limit);
        Ok(hits)
    }
}

/// Splits a name in camel case into its words, so that `KubePodCrashLooping` finds texts about crash looping pods.
fn words_of(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() {
            words.push(' ');
        }
        words.push(c);
    }
    format!("{name} {words}")
}

fn read_folder(folder: &Path) -> Result<Vec<Runbook>, Error> {
    let failed =
        |error: std::io::Error| Error::Folder { folder: folder.display().to_string(), detail: error.to_string() };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths
        .iter()
        .map(|path| Runbook::parse(&path.display().to_string(), &std::fs::read_to_string(path).map_err(failed)?))
        .collect()
}
