//! `wardroom bus dlq`: what detection could not take, and the way back.

use std::process::ExitCode;

use serde_json::{Value, json};
use wardroom_domain::TenantId;

use super::{Done, client, say, told};
use crate::options::{LettersCommand, Remote};

pub(crate) fn letters(command: LettersCommand) -> Done {
    match command {
        LettersCommand::List { remote, data, tenant, json } => {
            let answer = match data {
                Some(data) => {
                    let tenant = TenantId::new(tenant).map_err(|error| anyhow::anyhow!("--tenant: {error}"))?;
                    json!({ "dead_letters": wardroom_roles::dead_letters(&data, &tenant)? })
                }
                None => client(&remote).get("/api/v1/dead-letters")?,
            };
            if json {
                say(&answer)?;
            } else {
                for letter in answer["dead_letters"].as_array().into_iter().flatten() {
                    say(line(letter))?;
                }
            }
        }
        LettersCommand::Show { id, remote, json } => {
            let answer = client(&remote).get(&format!("/api/v1/dead-letters/{id}"))?;
            say(if json { answer.to_string() } else { serde_json::to_string_pretty(&answer)? })?;
        }
        LettersCommand::Replay { id, remote, json } => {
            let answer = client(&remote).post(&format!("/api/v1/dead-letters/{id}/replay"), &json!({}))?;
            told(&answer, json, &format!("{id} stands on the bus at {}", answer["offset"]))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `wardroom lake redrive`.
pub(crate) fn redrive(offset: u64, remote: &Remote, json: bool) -> Done {
    let answer = client(remote).post(&format!("/api/v1/quarantine/{offset}/redrive"), &json!({}))?;
    told(&answer, json, &format!("what passes of {offset} stands on the bus at {}", answer["redriven_as"]))?;
    Ok(ExitCode::SUCCESS)
}

fn line(letter: &Value) -> String {
    let text = |key: &str| letter[key].as_str().unwrap_or_default().to_owned();
    let replayed = if letter["replayed_as"].is_null() {
        "waits".to_owned()
    } else {
        format!("replayed as {}", letter["replayed_as"])
    };
    format!("{:>4}  {}  {:24}  {}  {replayed}", letter["id"], text("last_try"), text("protocol"), text("reason"))
}
