//! What the product has written or shows, and the search in it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use wardroom_testing::Server;

use super::planted::{Planted, Secret, base64};
use crate::bar::BarResult;

/// Places in which a secret within telemetry must not be, by the beginning of their names.
const WITHOUT_TELEMETRY: [&str; 8] =
    ["log", "audit export", "answer of", "output of", "action on", "dry run", "GET /metrics", "GET /readyz"];
/// Rows of a table that are read.
const MAX_ROWS: usize = 5000;

/// The places with their contents.
#[derive(Default)]
pub(super) struct Searched {
    places: Vec<(String, Vec<u8>)>,
}

impl Searched {
    pub(super) fn add(&mut self, place: &str, content: Vec<u8>) {
        self.places.push((place.to_owned(), content));
    }

    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.iter().map(|(_, content)| content.len()).sum()
    }

    /// Adds every file of a folder.
    pub(super) fn read_folder(&mut self, folder: &Path) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let kind = std::fs::symlink_metadata(&path)?.file_type();
            if kind.is_dir() {
                self.read_folder(&path)?;
            } else if kind.is_file() {
                self.add(&format!("file {}", path.display()), std::fs::read(&path)?);
            }
        }
        Ok(())
    }

    /// Adds every answer of the API that needs no parameter, as the server describes it.
    pub(super) fn read_api(&mut self, server: &Server) -> anyhow::Result<()> {
        let document: Value = serde_json::from_str(&server.get("/openapi.json", &server.responder_token)?.1)?;
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            let Some(operation) = operations.get("get") else { continue };
            // A stream has no end.
            if !path.contains('{') && !operation.to_string().contains("text/event-stream") {
                let (_, body) = server.get(path, &server.responder_token)?;
                self.add(&format!("GET {path}"), body.into_bytes());
            }
        }
        Ok(())
    }

    /// Adds the rows of every table: files of tables are compressed.
    pub(super) fn read_tables(&mut self, server: &Server) -> anyhow::Result<()> {
        let query = |text: String| -> anyhow::Result<Value> {
            let (_, rows) = server.post_json("/api/v1/sql", &server.responder_token, &json!({ "query": text }))?;
            Ok(rows)
        };
        let tables = query("SELECT table_schema, table_name FROM information_schema.tables".to_owned())?;
        let mut names = BTreeSet::new();
        for row in tables.as_array().into_iter().flatten() {
            let text = |name: &str| row[name].as_str().map(str::to_owned);
            names.extend(text("table_schema").zip(text("table_name")));
        }
        names.retain(|(schema, _)| schema != "information_schema");
        anyhow::ensure!(!names.is_empty(), "no tables are listed: {tables}");
        for (schema, table) in names {
            let rows = query(format!("SELECT * FROM {schema}.{table} LIMIT {MAX_ROWS}"))?;
            self.add(&format!("table {schema}.{table}"), rows.to_string().into_bytes());
        }
        Ok(())
    }

    /// Looks for every secret, as it is, in base64 and by its beginning: what was cut off is no protection.
    pub(super) fn compare(&self, planted: &Planted, uses: u64) -> BarResult {
        let mut result = BarResult { issued: planted.secrets.len() as u64, acked: uses, ..BarResult::default() };
        for secret in &planted.secrets {
            for (place, content) in &self.places {
                let is_allowed =
                    secret.is_telemetry && !WITHOUT_TELEMETRY.iter().any(|beginning| place.starts_with(beginning));
                if !is_allowed && is_in(secret, content) {
                    result.spurious += 1;
                    result.faults.push(format!("{} is in {place}", secret.what));
                }
            }
        }
        if uses == 0 {
            result.faults.push("no secret was used".to_owned());
        }
        result
    }
}

fn is_in(secret: &Secret, content: &[u8]) -> bool {
    let half = secret.value.get(..secret.value.len() * 2 / 3).unwrap_or(&secret.value);
    let encoded = base64(&secret.value);
    // Its last characters depend on what follows.
    let encoded = encoded.get(..encoded.len() - 4).unwrap_or(&encoded);
    [half, encoded].iter().any(|needle| find(content, needle.as_bytes()))
}

/// Whether the bytes contain others.
fn find(content: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return false };
    let mut from = 0;
    while let Some(at) = content[from..].iter().position(|byte| byte == first) {
        let at = from + at + 1;
        if content[at..].starts_with(rest) {
            return true;
        }
        from = at;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_whole_cut_and_encoded() {
        let value = "canary0123456789abcdef0123456789abcdef".to_owned();
        let secret = Secret { what: "a secret".into(), value: value.clone(), is_telemetry: false };
        for content in [format!("token={value}!"), value.chars().take(30).collect(), format!("x{}", base64(&value))] {
            assert!(is_in(&secret, content.as_bytes()), "{content}");
        }
        assert!(!is_in(&secret, b"canary0123 and canary0123456789"));
    }
}
