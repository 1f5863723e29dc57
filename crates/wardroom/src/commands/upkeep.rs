//! `wardroom lake maintain`: what the server does by itself, now, with a look at it first.

use std::process::ExitCode;

use anyhow::Context;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;
use wardroom_roles::{Chore, Deed, Lake, Sweep, clock};

use super::{Done, block, lifetime, say};
use crate::configuration;
use crate::options::MaintainArgs;

/// Runs the command.
pub(crate) fn maintain(arguments: &MaintainArgs) -> Done {
    let config = configuration::load(arguments.config.as_deref())?;
    let sweep = Sweep::after(clock::now(), lifetime("--sweep-after", &arguments.sweep_after)?, arguments.force)?;
    let (dry_run, json) = (arguments.dry_run, arguments.json);
    let done = block(async {
        let lake = Lake::tend(&config.lake, &arguments.data).await?;
        let lake = lake.with_context(|| format!("{} has no tables", arguments.data.display()))?;
        let chores = lake.chores(Some(sweep)).await?;
        if dry_run {
            return Ok(chores);
        }
        let bar = ProgressBar::new(chores.len() as u64);
        bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len}  {wide_msg}")?);
        for chore in &chores {
            bar.set_message(words(chore));
            lake.carry_out(chore).await.with_context(|| words(chore))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(chores)
    })?;
    if json {
        let chores = done.iter().map(|chore| {
            json!({ "table": chore.table, "what": chore.deed.as_str(), "files": chore.files, "rows": chore.rows,
                "bytes": chore.bytes })
        });
        say(json!({ "dry_run": dry_run, "chores": chores.collect::<Vec<_>>() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    done.iter().try_for_each(|chore| say(words(chore)))?;
    let note = if dry_run { "to do" } else { "done" };
    say(format!("{} {note}", done.len()))?;
    Ok(ExitCode::SUCCESS)
}

fn words(chore: &Chore) -> String {
    let Chore { table, deed, files, rows, bytes, .. } = chore;
    let about = match deed {
        Deed::Expire => "out of the table, their time is over",
        Deed::Sweep(_) => return format!("{table:22} sweep   {files} files that nobody names any more"),
        Deed::Merge | Deed::Join => "into few long ones",
    };
    format!("{table:22} {:7} {files} files with {rows} rows, {} {about}", deed.as_str(), HumanBytes(*bytes))
}
