//! The checks, in the order of their output. Each reads the facts and says what it has found; none asks the server.

use std::collections::BTreeMap;

use serde_json::Value;
use wardroom_domain::Timestamp;

use super::facts::{Fact, Facts};
use super::finding::Finding;
use crate::age::format_age;

/// All checks.
pub(super) const CHECKS: &[fn(&Facts) -> Vec<Finding>] = &[
    server,
    clock,
    certificates,
    credential,
    bus,
    database,
    tables,
    queries,
    detection,
    intake,
    silence,
    dead_letters,
    executor,
    actions,
    approvals,
    audit,
    sandbox,
    backup,
    tokens,
    bugs,
];

/// Difference between the clocks, in seconds, that is no fault.
const MAX_CLOCK_DIFFERENCE_S: i64 = 30;
/// Records that detection may be behind without being late.
const MAX_LAG_RECORDS: u64 = 100;
/// A source from which nothing has come for so long is silent, in seconds.
const SILENT_AFTER_S: f64 = 600.0;
/// A backup that is older than this is too old, in seconds.
const OLD_BACKUP_S: f64 = 2.0 * 86_400.0;
/// A certificate that expires sooner than this is reported, in seconds.
const CERTIFICATE_EXPIRES_SOON_S: f64 = 14.0 * 86_400.0;
/// A token whose end is nearer than this is reported, in seconds.
const TOKEN_ENDS_SOON_S: f64 = 7.0 * 86_400.0;

fn server(facts: &Facts) -> Vec<Finding> {
    if let Some(reason) = &facts.unreachable {
        let remedy = "start it with `wardroom serve`, or name another one with --url or WARDROOM_URL";
        return vec![Finding::fail("server", reason.clone(), remedy)];
    }
    let Some(ready) = facts.ready.known() else {
        let detail = format!("{} answers, but not as a server of this program does", facts.url);
        return vec![Finding::fail("server", detail, "check --url or WARDROOM_URL, and the proxy before the server")];
    };
    let status = text(&ready["status"]);
    vec![match status.as_str() {
        "ready" => Finding::ok("server", format!("{} is ready", facts.url)),
        _ => Finding::warn("server", format!("{} is {status}", facts.url), "see the findings below, and its log"),
    }]
}

fn clock(facts: &Facts) -> Vec<Finding> {
    let Some(server) = facts.server_seconds else { return Vec::new() };
    let difference = server - facts.now.millis() / 1000;
    if difference.abs() <= MAX_CLOCK_DIFFERENCE_S {
        return vec![Finding::ok("clock", "the server's clock agrees with this machine's")];
    }
    let detail = format!("the server's clock differs by {difference} s from this machine's");
    vec![Finding::warn("clock", detail, "synchronise both with NTP: approvals are refused if the difference grows")]
}

/// The certificates of the listeners, if they have TLS.
fn certificates(facts: &Facts) -> Vec<Finding> {
    let state = facts.ready.known().map(|ready| text(&ready["tls"])).unwrap_or_default();
    if matches!(state.as_str(), "" | "off") {
        return Vec::new();
    }
    let remedy =
        "renew it; the server reads the new files by itself, `wardroom config check` says what is wrong with them";
    let expiries = facts.metrics.iter().filter(|sample| sample.name == "wardroom_tls_certificate_expiry_seconds");
    let left = expiries.map(|sample| sample.value - facts.now.seconds_f64()).reduce(f64::min);
    match left.filter(|left| state == "ok" && *left < CERTIFICATE_EXPIRES_SOON_S) {
        Some(left) => {
            let detail = format!("a certificate expires in {} days", (left / 86_400.0).floor());
            vec![Finding::warn("certificates", detail, remedy)]
        }
        None => part(facts, "certificates", "tls", &["ok"], remedy),
    }
}

fn credential(facts: &Facts) -> Vec<Finding> {
    if let Some(caller) = facts.whoami.known() {
        let (principal, role, tenant) = (text(&caller["principal"]), text(&caller["role"]), text(&caller["tenant"]));
        return vec![Finding::ok("credential", format!("{principal}, {role} of tenant {tenant}"))];
    }
    vec![match (&facts.incidents, facts.has_token) {
        (Fact::Known(_), _) => Finding::ok("credential", "the server accepts it"),
        (Fact::Refused(401), true) => Finding::fail(
            "credential",
            "the server does not know the token",
            "it was revoked, has expired, or is another server's: `wardroom token create` makes one",
        ),
        (Fact::Refused(401), false) => {
            Finding::fail("credential", "no token was given", "set WARDROOM_TOKEN, or give --token")
        }
        (Fact::Refused(403), _) => Finding::note(
            "credential",
            "the token may not read incidents (role sender); what needs that is not checked",
        ),
        (Fact::Refused(_) | Fact::Absent, _) if facts.unreachable.is_some() => return Vec::new(),
        (Fact::Refused(status), _) => {
            Finding::fail("credential", format!("the server answers {status}"), "see the server's log")
        }
        (Fact::Absent, _) => Finding::fail("credential", "the server does not answer", "see the server's log"),
    }]
}

fn bus(facts: &Facts) -> Vec<Finding> {
    let remedy = "free space on its disk, or repair the disk; senders repeat what was not accepted";
    part(facts, "bus", "bus", &["ok"], remedy)
}

fn database(facts: &Facts) -> Vec<Finding> {
    part(facts, "database", "store", &["ok"], "repair it, or restore the newest backup; the log has the whole error")
}

fn tables(facts: &Facts) -> Vec<Finding> {
    let mut found = part(facts, "tables", "lake", &["ok", "off"], "`wardroom lake verify` names damaged files");
    let failures = facts.metric("wardroom_lake_failures_total").unwrap_or_default();
    if failures > 0.0 {
        let detail = format!("{failures} writes to the tables have failed since the start; each is repeated");
        found.push(Finding::note("tables", detail));
    }
    found
}

fn queries(facts: &Facts) -> Vec<Finding> {
    part(facts, "queries", "queries", &["ok", "off"], "the server's log says why query workers end")
}

fn detection(facts: &Facts) -> Vec<Finding> {
    let Some((first, second)) = facts.lag else { return Vec::new() };
    if second > MAX_LAG_RECORDS && second >= first {
        let detail = format!("it is {second} records behind what has been received, and does not catch up");
        let remedy = "give it more CPU, or send fewer series: `wardroom_detect_signals` at /metrics counts them";
        return vec![Finding::warn("detection", detail, remedy)];
    }
    vec![Finding::ok("detection", format!("{second} records behind what has been received"))]
}

/// What comes in, and what of it is refused.
fn intake(facts: &Facts) -> Vec<Finding> {
    if facts.metrics.is_empty() {
        return Vec::new();
    }
    let mut accepted: BTreeMap<&str, f64> = BTreeMap::new();
    for sample in facts.metrics.iter().filter(|sample| sample.name == "wardroom_intake_accepted_records_total") {
        *accepted.entry(sample.labels.get("protocol").map_or("", String::as_str)).or_default() += sample.value;
    }
    let came: Vec<String> = accepted
        .iter()
        .filter(|(_, records)| **records > 0.0)
        .map(|(protocol, records)| format!("{records} by {protocol}"))
        .collect();
    let mut found = vec![match came.as_slice() {
        [] => Finding::warn(
            "intake",
            "no telemetry has been accepted since the start",
            "point a collector at this server: docs/sources lists the ways in",
        ),
        came => Finding::ok("intake", format!("records accepted since the start: {}", came.join(", "))),
    }];
    for (name, label, what) in [
        ("wardroom_intake_rejected_records_total", "reason", "rejected"),
        ("wardroom_limited_records_total", "limit", "beyond a limit of the tenant"),
    ] {
        for sample in facts.metrics.iter().filter(|sample| sample.name == name && sample.value > 0.0) {
            let protocol = sample.labels.get("protocol").map_or(String::new(), |protocol| format!(" of {protocol}"));
            let reason = sample.labels.get(label).map_or("", String::as_str);
            let detail = format!("{} records{protocol} were {what} since the start: {reason}", sample.value);
            found.push(Finding::warn("intake", detail, "correct the sender, or raise the limit: docs/limits.md"));
        }
    }
    found
}

/// Sources from which something has come, and nothing for a while.
fn silence(facts: &Facts) -> Vec<Finding> {
    let Some(sources) = facts.sources.known().and_then(|found| found["sources"].as_array()) else { return Vec::new() };
    let silent = sources.iter().filter_map(|source| {
        let last = Timestamp::parse(source["last_at"].as_str()?).ok()?;
        (facts.now.seconds_since(last) > SILENT_AFTER_S).then(|| {
            let name = ["name", "protocol"].iter().find_map(|key| source[*key].as_str()).unwrap_or_default();
            let principal = source["principal"].as_str().map_or(String::new(), |it| format!(" of {it}"));
            let age = format_age(last, facts.now);
            Finding::warn(
                "sources",
                format!("nothing has come by {name}{principal} for {age}"),
                "check that the sender runs, and what it logs about this server",
            )
        })
    });
    let silent: Vec<Finding> = silent.collect();
    if silent.is_empty() && !sources.is_empty() {
        return vec![Finding::ok("sources", format!("{} send", sources.len()))];
    }
    silent
}

fn dead_letters(facts: &Facts) -> Vec<Finding> {
    let Some(letters) = facts.dead_letters.known().and_then(|found| found["dead_letters"].as_array()) else {
        return Vec::new();
    };
    let pending = letters.iter().filter(|letter| letter["replayed_as"].is_null()).count();
    if pending == 0 {
        return vec![Finding::ok("records", "none that detection could not process")];
    }
    let detail = format!("{pending} records could not be processed by detection");
    vec![Finding::warn("records", detail, "`wardroom bus dlq list` shows them, `wardroom bus dlq replay` tries again")]
}

fn executor(facts: &Facts) -> Vec<Finding> {
    let Some(ready) = facts.ready.known() else { return Vec::new() };
    vec![match text(&ready["executor"]).as_str() {
        "up" => Finding::ok("executor", "it answers"),
        "not configured" => Finding::note("executor", "there is none, so that plans are proposed and none is executed"),
        state => Finding::fail(
            "executor",
            format!("it is {state}: {}", text(&ready["executor_error"])),
            "`wardroom config check --executor-config` says what is wrong with its file; its log says the rest",
        ),
    }]
}

fn actions(facts: &Facts) -> Vec<Finding> {
    match facts.ready.known().map(|ready| text(&ready["actions"])).as_deref() {
        Some("stopped") => vec![Finding::warn(
            "actions",
            "all actions are stopped",
            "`wardroom resume` ends that; `wardroom audit list --action stop_all` says who stopped them and why",
        )],
        Some("possible") => vec![Finding::ok("actions", "possible after approval")],
        _ => Vec::new(),
    }
}

fn approvals(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let proof = facts.ready.known().map(|ready| text(&ready["approval_proof"])).unwrap_or_default();
    if proof.contains("token") {
        found.push(Finding::warn(
            "approvals",
            "a bearer token proves approvals of some approvers, and the server has seen it",
            "list their SSH keys in the executor's file in place of `proof: token`: `wardroom approver keygen`",
        ));
    }
    let approvers = facts.approvers.known().and_then(|found| found["approvers"].as_array());
    let has_executor = facts.ready.known().is_some_and(|ready| ready["executor"] == "up");
    match approvers.map(Vec::len) {
        Some(0) if has_executor => found.push(Finding::warn(
            "approvals",
            "there is no approver, so that no plan can be approved",
            "list approvers in the executor's file; docs/security.md says how",
        )),
        Some(count) if count > 0 && found.is_empty() => {
            found.push(Finding::ok("approvals", format!("{count} approvers")));
        }
        _ => {}
    }
    found
}

fn audit(facts: &Facts) -> Vec<Finding> {
    let remedy = "`wardroom audit verify --data` says what differs";
    let Some(ready) = facts.ready.known() else { return Vec::new() };
    let mut found = Vec::new();
    if facts.metric("wardroom_audit_unsigned_entries").unwrap_or_default() > 0.0 {
        found.push(Finding::warn("audit log", text(&ready["audit"]), remedy));
    } else {
        found.push(Finding::ok("audit log", text(&ready["audit"])));
    }
    let heads = text(&ready["audit_heads"]);
    if !heads.is_empty() && heads != "ok" {
        let remedy = "check the place that `audit-heads` in the executor's file names";
        found.push(Finding::warn("audit log", format!("its heads are not published: {heads}"), remedy));
    }
    found
}

fn sandbox(facts: &Facts) -> Vec<Finding> {
    match facts.ready.known().map(|ready| text(&ready["isolation"])).as_deref() {
        Some("none") => vec![Finding::warn(
            "sandbox",
            "the kernel does not confine the server",
            "use a Linux kernel with Landlock (5.13 or newer, `lsm=` contains landlock)",
        )],
        Some(isolation) if !isolation.is_empty() => vec![Finding::ok("sandbox", isolation)],
        _ => Vec::new(),
    }
}

fn backup(facts: &Facts) -> Vec<Finding> {
    if facts.metrics.is_empty() {
        return Vec::new();
    }
    let Some(last) = facts.metric("wardroom_backup_last_success_timestamp_seconds").filter(|last| *last > 0.0) else {
        return vec![Finding::note("backup", "the server makes none; `backup` in its configuration turns them on")];
    };
    let last = Timestamp::from_millis((last * 1000.0) as i64);
    let age = format_age(last, facts.now);
    if facts.now.seconds_since(last) > OLD_BACKUP_S {
        let remedy = "the server's log says why no newer one was made; check the space at `backup.to`";
        return vec![Finding::warn("backup", format!("the newest is {age} old"), remedy)];
    }
    vec![Finding::ok("backup", format!("the newest is {age} old"))]
}

fn tokens(facts: &Facts) -> Vec<Finding> {
    let Some(tokens) = facts.tokens.known().and_then(|found| found["tokens"].as_array()) else { return Vec::new() };
    let ends = |token: &Value| {
        let end = Timestamp::parse(token["expires_at"].as_str()?).ok()?;
        let left = end.seconds_since(facts.now);
        (token["revoked_at"].is_null() && left > 0.0 && left < TOKEN_ENDS_SOON_S).then_some(end)
    };
    let soon = tokens.iter().filter_map(|token| {
        let end = ends(token)?;
        let detail = format!(
            "the token {} of {} ends {}",
            text(&token["id"]),
            text(&token["principal"]),
            format_age(end, facts.now)
        );
        Some(Finding::warn("tokens", detail, "`wardroom token create` makes another one"))
    });
    soon.collect()
}

/// Counters that are 0 unless something is wrong with the program or the machine.
fn bugs(facts: &Facts) -> Vec<Finding> {
    let counters = [
        ("wardroom_detect_panics_total", "detectors have panicked", "report it with the lines of the log around it"),
        ("wardroom_bus_corrupt_records_total", "damaged records of the bus were skipped", "check the disk"),
        ("wardroom_lake_damaged_files", "files of the tables are damaged", "`wardroom lake verify` names them"),
        ("wardroom_log_lines_lost_total", "lines of the log could not be written", "check what reads its stderr"),
    ];
    let found = counters.into_iter().filter_map(|(name, what, remedy)| {
        let count = facts.metric(name).filter(|count| *count > 0.0)?;
        Some(Finding::warn("faults", format!("{count} {what}"), remedy))
    });
    found.collect()
}

/// A part of the readiness document that is one of `good`, or the reason why not.
fn part(facts: &Facts, check: &'static str, key: &str, good: &[&str], remedy: &str) -> Vec<Finding> {
    let Some(state) = facts.ready.known().map(|ready| text(&ready[key])) else { return Vec::new() };
    vec![if good.contains(&state.as_str()) { Finding::ok(check, state) } else { Finding::fail(check, state, remedy) }]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
