//! Many seeds, a few at a time, and the table of what came of them.

use std::process::{ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use serde_json::Value;

use crate::build::{Programs, command, root};
use crate::demo::{Options, verdict};

/// Runs the seeds, each in a process of its own, and writes the table.
pub(crate) fn run(_: &Programs, options: &Options, first: u64, last: u64) -> anyhow::Result<ExitCode> {
    let next = AtomicU64::new(first);
    let reports: Mutex<Vec<(u64, Option<Value>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::AcqRel);
                    if seed > last {
                        return;
                    }
                    let report = one(seed, options);
                    let words = match &report {
                        Ok(report) => {
                            format!("exit {} {} {}", verdict(report), report["fault"]["kind"], report["outcome"])
                        }
                        Err(error) => format!("failed: {error:#}"),
                    };
                    anstream::eprintln!("seed {seed}: {words}");
                    if let Ok(mut reports) = reports.lock() {
                        reports.push((seed, report.ok()));
                    }
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_default();
    reports.sort_by_key(|(seed, _)| *seed);
    let table = table(&reports, options);
    match &options.out {
        Some(out) => std::fs::write(root().join(out), &table)?,
        None => anstream::print!("{table}"),
    }
    let good = reports.iter().filter(|(_, report)| report.as_ref().is_some_and(|report| verdict(report) == 0)).count();
    let enough = good * 10 >= reports.len() * 9;
    Ok(if enough { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn one(seed: u64, options: &Options) -> anyhow::Result<Value> {
    let mut run = command(std::env::current_exe()?);
    run.args(["demo", "--headless", "--seed", &seed.to_string()]);
    if let Some(names) = options.plan.names_seed {
        run.args(["--names-seed", &(names + seed).to_string()]);
    }
    if options.plan.otlp {
        run.arg("--otlp");
    }
    if !options.plan.shop_args.is_empty() {
        run.args(["--shop-args", &options.plan.shop_args.join(" ")]);
    }
    if let Some(withhold) = options.withhold {
        run.args(["--withhold", &withhold.as_secs().to_string()]);
    }
    if let Some(keep) = &options.plan.keep {
        run.arg("--keep").arg(keep.join(format!("seed-{seed}")));
    }
    let output = run.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    let line = String::from_utf8_lossy(&output.stdout);
    let report = line.lines().rev().find(|line| line.starts_with('{'));
    let report = report
        .with_context(|| String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned())?;
    Ok(serde_json::from_str(report)?)
}

fn table(reports: &[(u64, Option<Value>)], options: &Options) -> String {
    let mut out = format!(
        "# {} seeds{}\n\nMade by `{}`. Settings: the shop at 40 requests/s and 1 s readings;\n\
         z 2.5/3/4, five consecutive points, 20 % effect, hold 90 s, 20 good samples.\n\n\
         | seed | case | what broke | where | said | where | sure | last deployment | highest z | noticed s | proposed s | good s | resolved s | outcome | exit |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        reports.len(),
        match (options.plan.names_seed.is_some(), options.plan.otlp) {
            (true, _) => " under other names",
            (false, true) => " over OTLP",
            (false, false) => "",
        },
        made_by(reports, options)
    );
    let (mut right, mut by_deployment, mut by_z) = (0, 0, 0);
    let (mut noticed, mut proposed) = (Vec::new(), Vec::new());
    for (seed, report) in reports {
        let Some(report) = report else {
            out.push_str(&format!("| {seed} | set-up failed | | | | | | | | | | | | | 4 |\n"));
            continue;
        };
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let seconds = |key: &str| report["seconds"][key].as_f64();
        let shown = |key: &str| seconds(key).map_or_else(|| "-".to_owned(), |s| format!("{s:.1}"));
        let fault = &report["fault"];
        right +=
            usize::from(report["cause"]["service"] == fault["service"] && report["cause"]["kind"] == fault["kind"]);
        by_deployment += usize::from(report["naive"]["last_deployment"] == fault["service"]);
        by_z += usize::from(report["naive"]["highest_z"] == fault["service"]);
        noticed.extend(seconds("incident"));
        proposed.extend(seconds("proposal").zip(seconds("incident")).map(|(proposal, incident)| proposal - incident));
        out.push_str(&format!(
            "| {seed} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            text(&report["case"]),
            text(&fault["kind"]),
            text(&fault["service"]),
            text(&report["cause"]["kind"]),
            text(&report["cause"]["service"]),
            report["cause"]["confidence"],
            text(&report["naive"]["last_deployment"]),
            text(&report["naive"]["highest_z"]),
            shown("incident"),
            shown("proposal"),
            shown("mitigated"),
            shown("resolved"),
            text(&report["outcome"]),
            verdict(report)
        ));
    }
    let all = reports.len().max(1);
    let exit0 = reports.iter().filter(|(_, report)| report.as_ref().is_some_and(|report| verdict(report) == 0)).count();
    let percent = |count: usize| count as f64 * 100.0 / all as f64;
    out.push_str(&format!(
        "\n{exit0} of {all} exit 0. Right causes: {:.0} %; blaming the last deployment: {:.0} %; blaming the highest z: {:.0} %.\n\
         Median from fault to incident {:.1} s, from incident to proposal {:.1} s.\n",
        percent(right), percent(by_deployment), percent(by_z), median(&mut noticed), median(&mut proposed)
    ));
    out
}

/// The command that makes this table again.
fn made_by(reports: &[(u64, Option<Value>)], options: &Options) -> String {
    let seed = |report: Option<&(u64, Option<Value>)>| report.map_or(0, |report| report.0);
    let (first, last) = (seed(reports.first()), seed(reports.last()));
    let mut text = format!("cargo xtask demo --seeds {first}..{last} --jobs {}", options.jobs);
    if options.plan.otlp {
        text.push_str(" --otlp");
    }
    if let Some(names) = options.plan.names_seed {
        text.push_str(&format!(" --names-seed {names}"));
    }
    if let Some(withhold) = options.withhold {
        text.push_str(&format!(" --withhold {}", withhold.as_secs()));
    }
    if !options.plan.shop_args.is_empty() {
        text.push_str(&format!(" --shop-args \"{}\"", options.plan.shop_args.join(" ")));
    }
    if let Some(out) = &options.out {
        text.push_str(&format!(" --out {}", out.display()));
    }
    text
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
