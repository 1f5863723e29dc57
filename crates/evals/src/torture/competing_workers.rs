//! Two processes perform the effects of one PostgreSQL database, and are stopped for longer than a lease and killed.
//!
//! Each effect must be finished once, by the worker that leased it last: a worker that was paused past its lease has an
//! old fencing token, and its result must be refused. The workers note every lease and every result in a file outside
//! of the database; a result that was accepted from an old token is `spurious`, a second one `duplicate`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use wardroom_domain::{TenantId, Timestamp};
use wardroom_store::{FinishedEffect, NewEffect, Store, Worker};
use wardroom_testing::{PostgresServer, now_ms};

use crate::bar::{BarOptions, BarResult};
use crate::child_process::ChildProcess;
use crate::progress::print_progress;

/// Hidden subcommand that runs one worker until it is ended.
pub(crate) const EFFECT_WORKER_COMMAND: &str = "effect-worker";
/// Variable with the password of the database.
const PASSWORD_VARIABLE: &str = "TORTURE_DATABASE_PASSWORD";
/// Effects of a run.
const EFFECTS: usize = 60;
/// Duration of a lease; much shorter than the product's, so that a short pause is longer.
const LEASE: Duration = Duration::from_millis(300);
/// Pause of a worker, longer than a lease.
const PAUSE: Duration = Duration::from_millis(700);
/// Duration of the work for one effect.
const WORK: Duration = Duration::from_millis(25);
/// All effects must be finished within this time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs both workers until all effects are finished.
pub(super) fn run(dir: &Path, postgres: &PostgresServer, options: &BarOptions) -> anyhow::Result<BarResult> {
    std::fs::create_dir_all(dir)?;
    let database = format!("workers-{}", options.seed);
    postgres.create_database(&database)?;
    let url = postgres.url(&database);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = runtime.block_on(prepare(&url, &postgres.password))?;
    let notes = dir.join("notes.jsonl");
    let start = |name: usize| start_worker(&url, &postgres.password, name, &notes, options);
    let (mut workers, mut started) = (vec![start(0)?, start(1)?], 2);
    let mut random = StdRng::seed_from_u64(options.seed);
    let (begun, mut pauses) = (Instant::now(), 0);
    loop {
        let open = runtime.block_on(store.next_effect_at(""))?;
        if open.is_none() || begun.elapsed() > TIMEOUT {
            break;
        }
        std::thread::sleep(Duration::from_millis(random.random_range(100..300)));
        let victim = random.random_range(0..2);
        if pauses % 4 == 3 {
            workers[victim].kill()?;
            workers[victim].wait()?;
            workers[victim] = start(started)?;
            started += 1;
        } else {
            let pid = Pid::from_raw(workers[victim].id() as i32);
            kill(pid, Signal::SIGSTOP)?;
            std::thread::sleep(PAUSE);
            kill(pid, Signal::SIGCONT)?;
        }
        pauses += 1;
    }
    // What a paused worker still wants to write is written by then.
    std::thread::sleep(PAUSE);
    drop(workers);
    let result = check(&notes)?;
    print_progress(format!(
        "two workers, {pauses} pauses and kills: {} of {EFFECTS} effects finished once, {} twice, {} by an old lease",
        result.acked, result.duplicate, result.spurious
    ));
    Ok(result)
}

/// Migrates the database and writes the effects.
async fn prepare(url: &str, password: &str) -> anyhow::Result<Store> {
    let store = Store::connect_postgres(url, Some(password)).await?;
    store.migrate().await?;
    let now = Timestamp::from_millis(now_ms());
    let effects: Vec<NewEffect> = (0..EFFECTS)
        .map(|number| NewEffect {
            id: format!("effect-{number}"),
            kind: "message".to_owned(),
            resource: String::new(),
            queue: String::new(),
            payload: "{}".to_owned(),
            not_before: now,
            deadline: now.plus(TIMEOUT),
        })
        .collect();
    store.enqueue_effects(&TenantId::main(), "incident", &effects, now, None).await?;
    Ok(store)
}

#[expect(clippy::disallowed_methods, reason = "the bar starts the processes that it stops and kills")]
fn start_worker(
    url: &str,
    password: &str,
    name: usize,
    notes: &Path,
    options: &BarOptions,
) -> anyhow::Result<ChildProcess> {
    let mut worker = Command::new(std::env::current_exe()?);
    worker.args([EFFECT_WORKER_COMMAND, "--url", url, "--name", &format!("worker:{name}"), "--notes"]).arg(notes);
    worker.env(PASSWORD_VARIABLE, password).env("WARDROOM_MUTANT", options.mutant_name());
    Ok(worker.stdout(Stdio::null()).spawn().context("cannot start a worker")?.into())
}

/// One worker: leases one effect at a time, works, and finishes it.
///
/// # Errors
/// Returns an error if the database or the file cannot be used.
pub(crate) fn run_worker(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let (mut url, mut name, mut notes) = (String::new(), String::new(), PathBuf::new());
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("url") => url = arguments.value()?.string()?,
            Long("name") => name = arguments.value()?.string()?,
            Long("notes") => notes = arguments.value()?.into(),
            other => return Err(other.unexpected().into()),
        }
    }
    #[expect(clippy::disallowed_methods, reason = "a password is no argument, which other users may read")]
    let password = std::env::var(PASSWORD_VARIABLE).context(PASSWORD_VARIABLE)?;
    let mut notes = OpenOptions::new().create(true).append(true).open(notes)?;
    let mut note = |line: Value| notes.write_all(format!("{line}\n").as_bytes());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::connect_postgres(&url, Some(&password)).await?;
        loop {
            let worker = Worker { name: &name, queue: "" };
            let now = Timestamp::from_millis(now_ms());
            for effect in store.lease_effects(worker, 1, now, LEASE).await? {
                note(serde_json::json!({ "leased": effect.id, "fencing": effect.fencing }))?;
                // The process itself, as a call of a tool would: it is stopped here, mostly.
                std::thread::sleep(WORK);
                let finished =
                    FinishedEffect { id: effect.id.clone(), fencing: effect.fencing, result: "{}".to_owned() };
                if store.finish_effect(&finished, Timestamp::from_millis(now_ms())).await? {
                    note(serde_json::json!({ "finished": effect.id, "fencing": effect.fencing }))?;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

/// Compares the results that were accepted with the leases.
fn check(notes: &Path) -> anyhow::Result<BarResult> {
    let (mut leases, mut finished) = (BTreeMap::<String, i64>::new(), BTreeMap::<String, Vec<i64>>::new());
    for line in std::fs::read_to_string(notes)?.lines() {
        let note: Value = serde_json::from_str(line)?;
        let fencing = note["fencing"].as_i64().context("a note without a token")?;
        if let Some(id) = note["leased"].as_str() {
            let newest = leases.entry(id.to_owned()).or_default();
            *newest = fencing.max(*newest);
        } else if let Some(id) = note["finished"].as_str() {
            finished.entry(id.to_owned()).or_default().push(fencing);
        }
    }
    let again = leases.values().filter(|fencing| **fencing > 1).count();
    ensure!(again > 0, "no effect was leased twice: the pauses had no effect");
    let mut result = BarResult { issued: EFFECTS as u64, ..BarResult::default() };
    for (id, newest) in &leases {
        let accepted = finished.get(id).map_or(&[][..], Vec::as_slice);
        // A worker that was killed between the result and its note leaves none.
        result.acked += u64::from(!accepted.is_empty());
        result.duplicate += (accepted.len() as u64).saturating_sub(1);
        result.spurious += accepted.iter().filter(|fencing| *fencing < newest).count() as u64;
    }
    if leases.len() < EFFECTS {
        result.faults.push(format!("{} of {EFFECTS} effects were never leased", EFFECTS - leases.len()));
    }
    Ok(result)
}
