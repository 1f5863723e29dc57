//! `wardroom replay`: a stored stretch once more, through the configuration as it is now.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use wardroom_domain::{TenantId, Timestamp};
use wardroom_roles::{ReplayOptions, Replayed, clock};

use super::{Done, block, lifetime, say};
use crate::configuration;
use crate::options::ReplayArgs;

/// Runs the command.
pub(crate) fn replay(arguments: &ReplayArgs) -> Done {
    let warnings = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr);
    warnings.try_init().map_err(|error| anyhow::anyhow!(error))?;
    let config = configuration::load(arguments.config.as_deref())?;
    let from = moment("--from", &arguments.from)?;
    let to = arguments.to.as_deref().map_or_else(|| Ok(clock::now()), |to| moment("--to", to))?;
    ensure!(from < to, "--from {from} is not before --to {to}");
    ensure!(arguments.speed.is_none_or(|speed| speed > 0.0), "--speed has to be more than 0");
    ensure!(arguments.data.join("bus").is_dir(), "{} is no data folder", arguments.data.display());
    let out = arguments.out.clone().unwrap_or_else(|| {
        let stretch = [from, to].map(|at| at.to_string().replace(':', "-"));
        arguments.data.join("replays").join(stretch.join("_"))
    });
    let options = ReplayOptions {
        data: arguments.data.clone(),
        out,
        tenant: TenantId::new(arguments.tenant.as_str()).map_err(|error| anyhow::anyhow!("--tenant: {error}"))?,
        from,
        to,
        warm_up: lifetime("--warm-up", &arguments.warm_up)?,
        speed: arguments.speed,
    };
    let begin_ms = from.minus(options.warm_up).millis();
    let bar = ProgressBar::new(u64::try_from(to.millis() - begin_ms).unwrap_or_default());
    bar.set_style(ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}  {eta} left")?);
    let mut shown = 0;
    let mut tell = |at: Timestamp| {
        let done = u64::try_from(at.millis() - begin_ms).unwrap_or_default();
        // A line a second of the telemetry at most.
        if done >= shown + 1000 {
            shown = done;
            bar.set_position(done);
            bar.set_message(at.to_string());
        }
    };
    let found = block(async { Ok(wardroom_roles::replay(&config, &options, &mut tell).await?) })?;
    bar.finish_and_clear();
    if arguments.json { print(&found, &options) } else { show(&found, &options) }
}

/// RFC 3339, or how long ago.
fn moment(flag: &str, text: &str) -> anyhow::Result<Timestamp> {
    if let Ok(ago) = lifetime(flag, text) {
        return Ok(clock::now().minus(ago));
    }
    Timestamp::parse(text)
        .map_err(|error| anyhow::anyhow!("{flag}: {text:?} is neither RFC 3339 nor a duration such as 2h: {error}"))
}

fn print(found: &Replayed, options: &ReplayOptions) -> Done {
    let incidents: Vec<_> = found
        .incidents
        .iter()
        .map(|(incident, known)| {
            json!({ "key": incident.key, "id": known, "title": incident.title, "severity": incident.severity,
                "services": incident.services, "trigger": incident.trigger, "began_at": incident.began_at,
                "opened_at": incident.opened_at })
        })
        .collect();
    let missing: Vec<_> = found.missing.iter().map(|(id, title)| json!({ "id": id, "title": title })).collect();
    say(json!({ "from": options.from, "to": options.to, "begun": found.begun, "requests": found.requests,
        "samples": found.samples, "anomalies": found.anomalies, "skipped": found.skipped, "incidents": incidents,
        "missing": missing, "tables": options.out.join("lake") }))?;
    Ok(ExitCode::SUCCESS)
}

fn show(found: &Replayed, options: &ReplayOptions) -> Done {
    let late = found.begun.is_none_or(|begun| begun > options.from.plus(Duration::from_secs(60)));
    if late {
        let begun = found.begun.map_or_else(|| "nothing".to_owned(), |begun| format!("nothing before {begun}"));
        say(format!("of that stretch {begun} is stored"))?;
    }
    for (incident, known) in &found.incidents {
        let known = known.as_deref().unwrap_or("new");
        say(format!("{known:8} {}  {}  {}", incident.opened_at, incident.key, incident.title))?;
    }
    for (id, title) in &found.missing {
        say(format!("{id:8} does not open now: {title}"))?;
    }
    let again = found.incidents.iter().filter(|(_, known)| known.is_some()).count();
    say(format!(
        "{} incidents: {again} as it happened, {} new, {} no more; {} requests with {} samples, {} unusual points, {} left out",
        found.incidents.len(),
        found.incidents.len() - again,
        found.missing.len(),
        found.requests,
        found.samples,
        found.anomalies,
        found.skipped
    ))?;
    say(format!("tables: {}", options.out.join("lake").display()))?;
    Ok(ExitCode::SUCCESS)
}
