//! `cargo xtask demo`: the show, one seed by itself, or the table of many.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lexopt::prelude::{Long, ValueExt};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;

use crate::build;
use crate::story::Story;
use crate::world::{Plan, World};

/// A headless seed ends within this time.
const LIMIT: Duration = Duration::from_secs(300);
/// Lines of Wardroom's log that are shown when something went wrong.
const LAST_WORDS: usize = 60;

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) plan: Plan,
    pub(crate) headless: bool,
    pub(crate) seeds: Option<(u64, u64)>,
    pub(crate) jobs: usize,
    pub(crate) out: Option<PathBuf>,
    /// Look on without approving, for so long.
    pub(crate) withhold: Option<Duration>,
}

impl Options {
    /// Reads the rest of the command line.
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> anyhow::Result<Self> {
        let mut options = Self { plan: Plan { seed: 1, ..Plan::default() }, jobs: 1, ..Self::default() };
        while let Some(argument) = arguments.next()? {
            let plan = &mut options.plan;
            match argument {
                Long("seed") => plan.seed = arguments.value()?.parse()?,
                Long("headless") => options.headless = true,
                Long("fault") => plan.fault = Some(arguments.value()?.string()?),
                Long("service") => plan.service = Some(arguments.value()?.string()?),
                Long("names-seed") => plan.names_seed = Some(arguments.value()?.parse()?),
                Long("otlp") => plan.otlp = true,
                Long("port") => plan.port = arguments.value()?.parse()?,
                Long("keep") => plan.keep = Some(std::path::absolute(arguments.value()?)?),
                Long("shop-args") => {
                    plan.shop_args = arguments.value()?.string()?.split_whitespace().map(str::to_owned).collect();
                }
                Long("withhold") => options.withhold = Some(Duration::from_secs(arguments.value()?.parse()?)),
                Long("jobs") => options.jobs = arguments.value()?.parse::<usize>()?.max(1),
                Long("out") => options.out = Some(arguments.value()?.into()),
                Long("seeds") => {
                    let text = arguments.value()?.string()?;
                    let (first, last) = text.split_once("..").ok_or_else(|| anyhow::anyhow!("--seeds wants 1..30"))?;
                    options.seeds = Some((first.parse()?, last.trim_start_matches('=').parse()?));
                }
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(options)
    }
}

/// Runs the command.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let programs = build::programs()?;
    if let Some((first, last)) = options.seeds {
        return crate::seeds::run(&programs, &options, first, last);
    }
    let mut world = World::start(&programs, &options.plan)?;
    let mut story = Story::new(!options.headless);
    story.begin(&world);
    let watched = watch(&mut world, &mut story, &options)?;
    let report = report(world, &watched, &options)?;
    story.end(&report);
    if options.headless {
        anstream::println!("{report}");
    }
    Ok(ExitCode::from(verdict(&report)))
}

/// The last look at the incident, and what was there before the fault.
pub(crate) struct Watched {
    incident: Value,
    before_fault: u64,
    total: u64,
}

/// Follows the first incident until it is settled, approving as told.
fn watch(world: &mut World, story: &mut Story, options: &Options) -> anyhow::Result<Watched> {
    let started = Instant::now();
    let patience = if options.headless { LIMIT } else { Duration::from_secs(1800) };
    let mut approved = false;
    let mut watched = Watched { incident: Value::Null, before_fault: 0, total: 0 };
    while started.elapsed() < options.withhold.unwrap_or(patience - Duration::from_secs(8)) {
        std::thread::sleep(Duration::from_millis(200));
        world.check()?;
        let incidents = world.get("/api/v1/incidents")?;
        let list = incidents["incidents"].as_array().cloned().unwrap_or_default();
        watched.total = list.len() as u64;
        let truth = world.truth()?;
        if truth["fault"]["at_ms"].is_null() {
            watched.before_fault = watched.total;
        }
        let Some(id) = list.last().and_then(|first| first["id"].as_str()) else {
            story.waiting(started.elapsed());
            continue;
        };
        let incident = world.get(&format!("/api/v1/incidents/{id}"))?;
        story.look(&incident, &world.url);
        let state = incident["state"].as_str().unwrap_or_default().to_owned();
        let waiting = state == "awaiting_approval" && !approved && options.withhold.is_none();
        if waiting && (options.headless || story.asks(&incident, &world.url)?) {
            let body = json!({ "plan_sha256": incident["plan_sha256"], "reason": "demo" });
            let (status, answer) = world.post(&format!("/api/v1/incidents/{id}/approve"), &body)?;
            // 409: somebody else, at the page, was faster.
            anyhow::ensure!(status == 202 || status == 409, "approve: {status} {answer}");
            approved = true;
        }
        watched.incident = incident;
        if ["resolved", "escalated", "closed", "suppressed"].contains(&state.as_str()) {
            break;
        }
    }
    Ok(watched)
}

/// The one JSON object of INTERFACES: what happened, when, and whether it was right.
fn report(world: World, watched: &Watched, options: &Options) -> anyhow::Result<Value> {
    let (incident, truth) = (&watched.incident, world.truth()?);
    let fault_ms = truth["fault"]["at_ms"].as_f64();
    let since = |at: Option<f64>| at.zip(fault_ms).map(|(at, fault)| ((at - fault) / 10.0).round() / 100.0);
    let reached = |state: &str| {
        let timeline = incident["timeline"].as_array().into_iter().flatten();
        let mut reached = timeline.filter(|line| line["state"] == state);
        since(reached.next().and_then(|line| millis(&line["at"])))
    };
    let anomalies = world.all("/api/v1/anomalies", "anomalies")?;
    let after = |at: f64| fault_ms.is_some_and(|fault| at >= fault);
    let first_anomaly = anomalies.iter().filter_map(|anomaly| millis(&anomaly["at"])).find(|at| after(*at));
    let opened = millis(&incident["opened_at"]);
    let highest_z = anomalies
        .iter()
        .filter(|anomaly| {
            millis(&anomaly["at"]).zip(opened).is_some_and(|(at, opened)| at <= opened && at >= opened - 60_000.0)
        })
        .max_by(|a, b| {
            let z = |anomaly: &Value| anomaly["z"].as_f64().unwrap_or_default().abs();
            z(a).total_cmp(&z(b))
        })
        .map(|anomaly| anomaly["service"].clone());
    let deployments = world.get("/api/v1/deployments")?;
    let last_deployment = deployments["deployments"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|d| millis(&d["at"]).zip(opened).is_some_and(|(at, opened)| at <= opened && at >= opened - 1_800_000.0))
        .max_by(|a, b| millis(&a["at"]).unwrap_or(0.0).total_cmp(&millis(&b["at"]).unwrap_or(0.0)))
        .map(|deployment| deployment["service"].clone());
    let cause = &incident["hypotheses"][0];
    let plan = &incident["plan"];
    let actions: Vec<Value> = incident["execution"]
        .as_str()
        .map(|outcome| {
            json!({ "tool": plan["tool"], "operation": plan["operation"], "target": plan["target"],
                "plan_sha256": plan["plan_sha256"], "idempotency_key": incident["idempotency_key"], "outcome": outcome })
        })
        .into_iter()
        .collect();
    let log = std::fs::read_to_string(world.dir.join("wardroom.log"))?;
    let audit = world.finish()?;
    let report = json!({
        "version": 1, "seed": options.plan.seed, "case": truth["case"],
        "fault": { "kind": truth["fault"]["kind"], "service": truth["fault"]["service"], "at": truth["fault"]["at"] },
        "cause": { "service": cause["service"], "kind": cause["kind"], "confidence": cause["confidence"], "evidence": cause["evidence"] },
        "naive": { "last_deployment": last_deployment, "highest_z": highest_z },
        "seconds": { "first_anomaly": since(first_anomaly), "incident": reached("open"), "root_cause": reached("awaiting_approval"),
            "proposal": reached("awaiting_approval"), "approved": reached("mitigating"), "executed": reached("verifying"),
            "mitigated": reached("mitigated"), "resolved": reached("resolved") },
        "actions": actions,
        "incidents": { "before_fault": watched.before_fault, "total": watched.total },
        "incident_id": incident["id"],
        "outcome": incident["outcome"].as_str().unwrap_or("none"),
        "audit": audit,
        "settings": { "rps": 40, "interval": "1s", "hold_s": 90, "good_samples": 20, "z": [2.5, 3, 4], "names_seed": options.plan.names_seed,
            "otlp": options.plan.otlp },
    });
    if verdict(&report) != 0 {
        // Whoever looks for the reason has nothing else: the folder is removed.
        let lines: Vec<&str> = log.lines().collect();
        anstream::eprintln!("the end of wardroom.log:\n{}", lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n"));
    }
    Ok(report)
}

/// 0 right, 2 wrong cause, 3 not resolved.
pub(crate) fn verdict(report: &Value) -> u8 {
    let right =
        report["cause"]["service"] == report["fault"]["service"] && report["cause"]["kind"] == report["fault"]["kind"];
    let applied = report["actions"][0]["outcome"] == "applied";
    match (right, report["outcome"] == "resolved" && applied) {
        (true, true) => 0,
        (false, _) if report["incident_id"].is_string() => 2,
        _ => 3,
    }
}

/// RFC 3339 to milliseconds since the epoch.
pub(crate) fn millis(at: &Value) -> Option<f64> {
    Timestamp::parse(at.as_str()?).ok().map(|at| at.millis() as f64)
}
