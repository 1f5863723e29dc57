//! The conventions by the names of the series that they know, and the exporters that they know.

use std::collections::HashMap;

use serde::Serialize;
use wardroom_domain::entity_names::{port_of, workload_of_pod};

use crate::builtin::BUILTIN;
use crate::compiled::{Exporter, Rule, Shape, Shared, SpelledName, compile};
use crate::context::Context;
use crate::convention::Convention;
use crate::error::ConventionError;

/// Characters between the words of a metric name.
const SEPARATORS: [char; 3] = ['_', '.', ':'];

/// A convention of the user's: the file's name, for errors, and its text.
#[derive(Clone, Debug, Serialize)]
pub struct UserConvention {
    /// The name.
    pub name: String,
    /// The YAML.
    pub text: String,
}

/// Conventions by the names of their series.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) conventions: Vec<Shared>,
    pub(crate) rules: Vec<Rule>,
    by_name: HashMap<Box<str>, Vec<(u32, Shape)>>,
    /// Names with a `*`, by their first word; those that begin with the `*` have none.
    by_pattern: HashMap<Box<str>, Vec<Pattern>>,
}

/// A metric name with a `*`.
#[derive(Debug)]
struct Pattern {
    start: Box<str>,
    end: Box<str>,
    rule: u32,
    shape: Shape,
}

/// Whether a scrape target is an exporter.
pub(crate) enum ExporterOf<'a> {
    /// One of a convention.
    Known(&'a Shared, &'a Exporter),
    /// By its name, one that no convention knows.
    Unknown,
    /// It is not.
    None,
}

impl Tables {
    /// Reads the user's conventions, and the built-in ones after them.
    pub(crate) fn new(user: &[UserConvention]) -> Result<Self, ConventionError> {
        let mut tables = Self::default();
        for convention in user {
            tables.add(&convention.name, &convention.text)?;
        }
        for (name, text) in BUILTIN {
            tables.add(name, text)?;
        }
        Ok(tables)
    }

    /// Adds a convention; those added first count first.
    fn add(&mut self, name: &str, text: &str) -> Result<(), ConventionError> {
        let error = |reason: String| ConventionError { name: name.to_owned(), reason };
        let options = serde_saphyr::options! { with_snippet: false };
        let parsed: Convention =
            serde_saphyr::from_str_with_options(text, options).map_err(|parse| error(parse.to_string()))?;
        let (shared, rules) = compile(&parsed, self.conventions.len()).map_err(error)?;
        self.conventions.push(shared);
        for (rule, names) in rules {
            let index = self.rules.len() as u32;
            self.rules.push(rule);
            for SpelledName { name, shape } in names {
                match name.split_once('*') {
                    Some((start, end)) => {
                        let pattern = Pattern { start: start.into(), end: end.into(), rule: index, shape };
                        let word = if start.contains(SEPARATORS) { first_word(start) } else { "" };
                        self.by_pattern.entry(word.into()).or_default().push(pattern);
                    }
                    None => self.by_name.entry(name.into()).or_default().push((index, shape)),
                }
            }
        }
        Ok(())
    }

    /// Returns the rules whose metric name is the series', those that count first before the others.
    pub(crate) fn candidates(&self, name: &str) -> Vec<(&Rule, Shape)> {
        let exact = self.by_name.get(name).into_iter().flatten().copied();
        let patterns = [first_word(name), ""].into_iter().filter_map(|word| self.by_pattern.get(word)).flatten();
        let by_pattern = patterns.filter(|pattern| {
            let long_enough = name.len() >= pattern.start.len() + pattern.end.len();
            long_enough && name.starts_with(&*pattern.start) && name.ends_with(&*pattern.end)
        });
        let mut found: Vec<_> = exact.chain(by_pattern.map(|pattern| (pattern.rule, pattern.shape))).collect();
        found.sort_by_key(|(rule, _)| *rule);
        found.into_iter().filter_map(|(rule, shape)| Some((self.rules.get(rule as usize)?, shape))).collect()
    }

    /// Returns the exporter that a scrape target is of.
    pub(crate) fn exporter_of(&self, context: &Context<'_>) -> ExporterOf<'_> {
        let container = context.view.value(&["container", "k8s_container_name"]).unwrap_or_default();
        let pod = context.rules.pod_of(&context.view);
        let workload = pod.map(workload_of_pod).unwrap_or_default();
        let service = context.view.value(&["service_name", "service"]).unwrap_or_default();
        let job = context.view.get("job").unwrap_or_default();
        let names = [job, container, workload, service];
        // In a pod, the container's name decides if there is one: the pod may be the server's.
        let says = |name: &str| name.contains("exporter");
        let says_exporter = if container.is_empty() { names.iter().any(|name| says(name)) } else { says(container) };
        let port = context.view.get("instance").and_then(port_of);
        let target = (pod.is_some(), says_exporter);
        let known = self.conventions.iter().find_map(|convention| {
            let exporter = convention.exporter.as_ref()?;
            exporter.is_target(&names, port, target).then_some((convention, exporter))
        });
        match known {
            Some((convention, exporter)) => ExporterOf::Known(convention, exporter),
            None if says_exporter => ExporterOf::Unknown,
            None => ExporterOf::None,
        }
    }
}

fn first_word(name: &str) -> &str {
    name.split(SEPARATORS).next().unwrap_or_default()
}
