//! Asking the tables.

use std::io::{Read, Write};
use std::process::ExitCode;

use wardroom_roles::clock;

use super::{Done, client, lifetime, say};
use crate::options::{Remote, TableAnswer, TableFormat, Time};

/// One query, its answer as it came.
pub(crate) fn sql(query: &str, answer: &TableAnswer) -> Done {
    let mut text = query.to_owned();
    if query == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text)?;
    }
    let path = format!("/api/v1/sql?format={}", answer.format.as_str());
    show(&client(&answer.remote).post_text(&path, &text)?, answer)
}

/// What the tables hold.
pub(crate) fn lake(remote: &Remote, json: bool) -> Done {
    let answer = client(remote).get("/api/v1/lake")?;
    if json {
        say(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format!("{:20} {:>6} {:>14} {:>16} {:>14}", "table", "files", "rows", "bytes", "goes next"))?;
    for table in answer["tables"].as_array().into_iter().flatten() {
        let number = |key: &str| table[key].as_u64().unwrap_or_default();
        let (name, files) = (table["table"].as_str().unwrap_or_default(), number("files"));
        let (rows, bytes, next) = (number("rows"), number("bytes"), number("outdated"));
        say(format!("{name:20} {files:>6} {rows:>14} {bytes:>16} {next:>14}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Log lines, newest first.
pub(crate) fn logs(filter: &[String], time: &Time, answer: &TableAnswer) -> Done {
    let mut parameters = stretch(time)?;
    parameters.push(("query", filter.join(" ")));
    table("/api/v1/logs", parameters, answer)
}

/// The spans of a trace.
pub(crate) fn trace(id: &str, answer: &TableAnswer) -> Done {
    table(&format!("/api/v1/traces/{id}"), Vec::new(), answer)
}

/// A question that has a name; without one, which there are.
pub(crate) fn ask(
    name: Option<&str>,
    more: [(&'static str, Option<String>); 3],
    time: &Time,
    answer: &TableAnswer,
) -> Done {
    let Some(name) = name else {
        for question in client(&answer.remote).get("/api/v1/ask")?["questions"].as_array().into_iter().flatten() {
            let text = |key: &str| question[key].as_str().unwrap_or_default();
            say(format!("{}\n{}", text("name"), text("sql")))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut parameters = stretch(time)?;
    parameters.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
    table(&format!("/api/v1/ask/{name}"), parameters, answer)
}

fn stretch(time: &Time) -> anyhow::Result<Vec<(&'static str, String)>> {
    let start = clock::now().minus(lifetime("--since", &time.since)?);
    let mut parameters = vec![("start", start.to_string()), ("limit", time.limit.to_string())];
    parameters.extend(time.until.clone().map(|until| ("end", until)));
    Ok(parameters)
}

fn table(path: &str, mut parameters: Vec<(&str, String)>, answer: &TableAnswer) -> Done {
    parameters.push(("format", answer.format.as_str().to_owned()));
    show(&client(&answer.remote).get_bytes(path, &parameters)?, answer)
}

fn show(table: &[u8], answer: &TableAnswer) -> Done {
    let mut out = std::io::stdout().lock();
    out.write_all(table)?;
    if matches!(answer.format, TableFormat::Json) {
        out.write_all(b"\n")?;
    }
    Ok(ExitCode::SUCCESS)
}
