//! The documentation: its examples run as written, its links lead somewhere, and its lists of routes and commands are
//! complete.
//!
//! The blocks of README and of the pages below `docs` run in one shell, page by page in the order in which README lists
//! them, as a reader would who pastes them into a terminal. Only the ports differ. What a block is run with:
//!
//! | language | run with |
//! |---|---|
//! | `sh` | the shell, with `-euo pipefail` |
//! | `python` | the tests' Python |
//! | `sql` | `wardroom sql` |
//! | `yaml` | `wardroom config check`, or `promtool check config` for Prometheus |
//! | `console` | each `$ command` in the shell; the output must be that of the block apart from figures and times |
//! | `output` | compared with the output of the block before it |
//! | `json` | parsed |
//! | `text` | nothing: a diagram |
//!
//! Words after the language: `needs=incident` raises one that waits for approval before the block, `test=NAME` names
//! the test that runs the block instead, `no-run=REASON` is one of [`NOT_RUN`].

mod blocks;
mod expected_output;
mod session;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use wardroom_testing::server::run;
use wardroom_testing::{SyntheticTelemetry, now_ms, remote_write};

use blocks::Block;
use session::Session;

/// Pages in reading order; the others follow by name.
const FIRST_PAGES: [&str; 9] = [
    "README.md",
    "docs/getting-started.md",
    "docs/sources/json.md",
    "docs/sources/opentelemetry.md",
    "docs/sources/prometheus.md",
    "docs/lake.md",
    "docs/api.md",
    "docs/cli.md",
    "docs/backup.md",
];

/// Blocks that cannot run here: (page, reason).
const NOT_RUN: [(&str, &str); 3] = [
    ("README.md", "runs-these-tests"),
    ("README.md", "release-build"),
    ("docs/sources/opentelemetry.md", "needs-otel-collector"),
];

/// Services that become slow, one for each block that needs an incident; the documentation lists them as targets.
const SLOW_SERVICES: [&str; 2] = ["cart", "payments"];

/// Length of the telemetry that opens an incident; the service is slow during its second half, or during
/// the last quarter: what begins at the same time may be one incident.
const SECONDS_OF_TELEMETRY: i64 = 240;

/// Time limit for telemetry to become visible, or for an incident to open.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The repository's root folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The names of all Markdown files in the root folder and below `docs`, sorted.
fn markdown_files() -> Vec<String> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![(root.clone(), false), (root.join("docs"), true)];
    while let Some((folder, is_recursive)) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && is_recursive {
                folders.push((path, true));
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The blocks of all pages in reading order.
fn all_blocks() -> Vec<Block> {
    let others = markdown_files().into_iter().filter(|page| !FIRST_PAGES.contains(&page.as_str()));
    let pages = FIRST_PAGES.iter().map(|page| (*page).to_owned()).chain(others);
    pages.flat_map(|page| blocks::parse(&page, &std::fs::read_to_string(root().join(&page)).unwrap())).collect()
}

#[test]
fn every_block_of_the_documentation_runs_as_written() {
    let blocks = all_blocks();
    check_exceptions(&blocks);
    for language in ["sh", "python", "sql", "yaml", "console", "output", "json", "text"] {
        println!("{} blocks of {language}", blocks.iter().filter(|block| block.language == language).count());
    }
    println!("not run: {NOT_RUN:?}");
    let mut session = Session::start(&root());
    let (mut incidents, mut before) = (0, None);
    for block in &blocks {
        if block.word("needs").is_some() {
            raise_incident(&mut session, incidents);
            incidents += 1;
        }
        if block.word("no-run").is_none() && block.word("test").is_none() {
            run_block(&mut session, block, before);
        }
        before = Some(block);
    }
    assert_eq!(incidents, SLOW_SERVICES.len(), "blocks with needs=incident");
}

/// Checks the words of the blocks: known, with a listed reason, and few.
fn check_exceptions(blocks: &[Block]) {
    let mut not_run = Vec::new();
    for block in blocks {
        for (word, value) in &block.words {
            match word.as_str() {
                "no-run" => not_run.push((block.page.as_str(), value.as_str())),
                "test" => assert!(is_test(value), "{block}: there is no test {value}"),
                "needs" => assert_eq!(value, "incident", "{block}"),
                _ => panic!("{block}: unknown word {word}={value}; see the first lines of {}", file!()),
            }
        }
    }
    assert_eq!(not_run, NOT_RUN, "blocks that are not run; make them run, or list them with their reason");
}

/// Whether a function of this name is among these tests.
fn is_test(name: &str) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = files.filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    sources.into_iter().any(|file| std::fs::read_to_string(file).unwrap().contains(&format!("#[test]\nfn {name}()")))
}

/// Runs one block. `before` is the block before it on the same or the previous page.
fn run_block(session: &mut Session, block: &Block, before: Option<&Block>) {
    match block.language.as_str() {
        "text" => {}
        "json" => drop(serde_json::from_str::<Value>(&block.text).unwrap_or_else(|error| panic!("{block}: {error}"))),
        "output" => {
            let before = before.filter(|before| before.page == block.page && before.language != "text");
            let before = before.unwrap_or_else(|| panic!("{block}: there is no block before it"));
            check_output(session, block, before);
        }
        "console" => {
            for (command, expected) in expected_output::commands(&block.text) {
                let output = session.run(block, &command);
                let is_right = expected_output::matches_apart_from_figures(&expected, &output);
                assert!(is_right, "{block}: expected\n{expected}\nfound\n{output}");
            }
        }
        _ => drop(session.run(block, &script(session, block))),
    }
}

/// The shell command that runs a block.
fn script(session: &Session, block: &Block) -> String {
    let path = |name: &str| session.write_file(name, &block.text);
    match block.language.as_str() {
        "sh" => block.text.clone(),
        "python" => format!(
            "PYTHONHOME=\"$CLIENT_PYTHON_HOME\" PYTHONPATH=\"$CLIENT_PYTHON_SITE\" LD_LIBRARY_PATH=\"$CLIENT_LIBRARIES\" \
             \"$CLIENT_PYTHON\" {}",
            path("block.py")
        ),
        "sql" => format!("wardroom sql - < {}", path("block.sql")),
        "yaml" if block.text.starts_with("remote_write:") => {
            format!("\"$PROMTOOL_BIN\" check config --syntax-only {}", path("prometheus.yml"))
        }
        "yaml" => format!("wardroom config check --config {}", path("block.yaml")),
        language => panic!("{block}: unknown language {language:?}; see the first lines of {}", file!()),
    }
}

/// Compares the output of a block with what the page says. A query is repeated until its rows are visible.
fn check_output(session: &mut Session, expected: &Block, block: &Block) {
    let deadline = Instant::now() + VISIBLE_TIMEOUT;
    let mut found = session.last_output().to_owned();
    while !expected_output::matches(&expected.text, &found) {
        let may_repeat = ["python", "sql"].contains(&block.language.as_str()) && Instant::now() < deadline;
        assert!(may_repeat, "{expected}: expected\n{}\nfound\n{found}", expected.text);
        std::thread::sleep(Duration::from_millis(200));
        found = session.run(block, &script(session, block));
    }
}

/// The example of a user's conventions, and of the setting that names their folder.
#[test]
fn documented_conventions_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("conventions");
    std::fs::create_dir(&folder).unwrap();
    let page = std::fs::read_to_string(root().join("docs/signals.md")).unwrap();
    let blocks = blocks::parse("docs/signals.md", &page);
    let examples: Vec<&str> = blocks
        .iter()
        .filter(|block| block.word("test") == Some("documented_conventions_are_accepted"))
        .map(|block| block.text.as_str())
        .collect();
    let [settings, convention] = examples[..] else { panic!("{examples:?}") };
    std::fs::write(folder.join("boiler.yaml"), convention).unwrap();
    let file = dir.path().join("wardroom.yaml");
    let folder = folder.display().to_string();
    std::fs::write(&file, settings.replace("/etc/wardroom/conventions", &folder)).unwrap();
    let (code, text) = run(&["config", "check", "--config", &file.display().to_string()]).unwrap();
    assert_eq!(code, Some(0), "{text}");
}

/// Makes a service slow and waits until its incident waits for approval.
fn raise_incident(session: &mut Session, number: usize) {
    let service = SLOW_SERVICES[number];
    let slow_seconds = SECONDS_OF_TELEMETRY / (2 << number);
    let [url, token] = ["$WARDROOM_URL", "$SENDER_TOKEN"].map(|variable| session.evaluate(variable));
    // Ends now: beside newer telemetry of the examples, older signals would count as stale.
    let mut telemetry = SyntheticTelemetry::new(now_ms() - SECONDS_OF_TELEMETRY * 1000, &[service, "newsletter"]);
    for second in 0..SECONDS_OF_TELEMETRY {
        let slow: &[&str] = if second < SECONDS_OF_TELEMETRY - slow_seconds { &[] } else { &[service] };
        let request = ureq::post(format!("{url}/api/v1/write"))
            .header("Authorization", format!("Bearer {token}"))
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy");
        let body = remote_write::body(telemetry.next_second(slow));
        assert_eq!(request.send(&body[..]).unwrap().status(), 204);
    }
    let deadline = Instant::now() + VISIBLE_TIMEOUT;
    let id = format!("INC-{} ", number + 1);
    loop {
        let list = session.evaluate("$(wardroom incidents list)");
        if list.lines().any(|line| line.starts_with(&id) && line.contains("awaiting_approval")) {
            return;
        }
        if Instant::now() > deadline {
            panic!("{id}: {list}\n{}", session.evaluate(&format!("$(wardroom incidents show {id})")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn api_page_lists_the_routes_of_the_openapi_document() {
    let (_, text) = run(&["openapi"]).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut routes = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        routes.extend(operations.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    assert!(routes.len() > 40, "{routes:?}");
    let page = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").next().unwrap());
    let listed: BTreeSet<String> =
        rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    assert_eq!(listed, routes, "left: docs/api.md, right: the OpenAPI document");
}

/// The commands below `command` that have no subcommands, or that also work without one.
fn collect_commands(command: &[&str], found: &mut BTreeSet<String>) {
    let arguments = [command, &["--help"]].concat();
    let (code, help) = run(&arguments).unwrap();
    assert_eq!(code, Some(0), "{arguments:?}");
    let (_, list) = help.split_once("\nCommands:\n").unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    // The names are indented by two spaces, the rest of a help text by more.
    let names: Vec<&str> =
        lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty()).collect();
    if !help.contains("<COMMAND>\n") || help.contains("[OPTIONS]\n") {
        found.insert(["wardroom"].iter().chain(command).copied().collect::<Vec<_>>().join(" "));
    }
    for name in names.into_iter().filter(|name| *name != "help") {
        collect_commands(&[command, &[name]].concat(), found);
    }
}

#[test]
fn cli_page_lists_every_command() {
    let mut commands = BTreeSet::new();
    collect_commands(&[], &mut commands);
    assert!(commands.len() > 25, "{commands:?}");
    let page = std::fs::read_to_string(root().join("docs/cli.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.split(" | ").nth(1));
    let listed: BTreeSet<String> = rows
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|text| text.starts_with("wardroom"))
        .map(str::to_owned)
        .collect();
    assert_eq!(listed, commands, "left: docs/cli.md, right: the program's help");
}

/// Pages about the present state: no decisions, reports of past runs or changes.
fn current_pages() -> impl Iterator<Item = String> {
    let is_past =
        |page: &str| ["docs/adr/", "docs/reliability/", "CHANGELOG.md"].iter().any(|name| page.starts_with(name));
    markdown_files().into_iter().filter(move |page| !is_past(page))
}

/// The commands in the text, such as `wardroom lake maintain --sweep-after`, exist and have these options.
#[test]
fn commands_in_the_text_exist() {
    let (mut unknown, mut count) = (Vec::new(), 0);
    let xtask = std::fs::read_to_string(root().join("crates/xtask/src/main.rs")).unwrap();
    let is_name =
        |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !word.starts_with('-');
    for page in current_pages() {
        for span in blocks::code_spans(&std::fs::read_to_string(root().join(&page)).unwrap()) {
            let words: Vec<&str> = span.split_whitespace().collect();
            let is_known = match words.as_slice() {
                ["wardroom", rest @ ..] if !rest.is_empty() => {
                    let path: Vec<&str> = rest.iter().copied().take_while(is_name).collect();
                    let (_, help) = run(&[&path[..], &["--help"]].concat()).unwrap();
                    let mut options = rest.iter().filter(|word| word.starts_with("--"));
                    help.contains(&format!("Usage: wardroom {}", path.join(" ")))
                        && options.all(|option| help.contains(*option))
                }
                ["cargo", "xtask", name, ..] => xtask.contains(&format!("\"{name}\" =>")),
                _ => continue,
            };
            count += 1;
            if !is_known {
                unknown.push(format!("{page}: {span}"));
            }
        }
    }
    assert_eq!(unknown, Vec::<String>::new());
    assert!(count > 50, "{count} commands found");
}

#[test]
fn links_of_the_documentation_lead_to_files_and_headings() {
    let mut broken = Vec::new();
    for page in markdown_files() {
        let path = root().join(&page);
        for target in blocks::links(&std::fs::read_to_string(&path).unwrap()) {
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let has_heading = || {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                heading.is_empty() || blocks::headings(&text).contains(heading)
            };
            if !file.exists() || !has_heading() {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}
