//! The commands beside `serve`.

mod dump;
mod letters;
mod replay;
mod tables;
mod upkeep;

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};
use wardroom_roles::{Store, clock, crash, database, tokens};

use crate::client::Client;
use crate::configuration;
use crate::options::{AuditCommand, ConfigCommand, IncidentsCommand, Remote, TokenCommand};

pub(crate) use dump::samples;
pub(crate) use letters::{letters, redrive};
pub(crate) use replay::replay;
pub(crate) use tables::{ask, lake, logs, sql, trace};
pub(crate) use upkeep::maintain;

pub(crate) type Done = anyhow::Result<ExitCode>;

/// One line on stdout.
pub(crate) fn say(line: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// An error, whole chain, on stderr.
pub(crate) fn complain(error: &anyhow::Error) {
    // With stderr closed there is nobody to tell.
    let _closed = writeln!(std::io::stderr(), "error: {error:#}");
}

pub(crate) fn block<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn open(data: &Path) -> anyhow::Result<Store> {
    Store::open(&database(data)).await.with_context(|| format!("data folder {}", data.display()))
}

pub(crate) fn token(command: TokenCommand) -> Done {
    match command {
        TokenCommand::Create { data, principal, role, tenant, expires, json } => {
            let field = |name: &'static str| move |error: String| anyhow::anyhow!("--{name}: {error}");
            let identity = Identity {
                tenant: TenantId::new(tenant).map_err(field("tenant"))?,
                principal: Principal::new(principal).map_err(field("principal"))?,
                role: AccessRole::parse(&role).map_err(field("role"))?,
            };
            let lives = expires.as_deref().map(|text| lifetime("--expires", text)).transpose()?;
            let (minted, secret) = block(async {
                let store = open(&data).await?;
                let minted = tokens::create(&store, identity, lives).await?;
                store.close().await;
                Ok(minted)
            })?;
            if json {
                say(json!({ "id": minted.id, "token": secret, "tenant": minted.identity.tenant,
                    "principal": minted.identity.principal, "role": minted.identity.role, "expires_at": minted.expires_at }))?;
            } else {
                say(secret)?;
            }
        }
        TokenCommand::List { data, json } => {
            let rows = block(async { Ok(open(&data).await?.tokens().await?) })?;
            let shown = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
            if json {
                let rows: Vec<Value> = rows
                    .iter()
                    .map(|row| {
                        json!({ "id": row.id, "tenant": row.identity.tenant, "principal": row.identity.principal,
                            "role": row.identity.role, "created_at": row.created_at, "expires_at": row.expires_at,
                            "revoked_at": row.revoked_at })
                    })
                    .collect();
                say(json!({ "tokens": rows }))?;
            } else {
                for row in rows {
                    let (who, role) = (&row.identity.principal, row.identity.role.as_str());
                    say(format!(
                        "{}  {who}  {role}  expires {}  revoked {}",
                        row.id,
                        shown(row.expires_at),
                        shown(row.revoked_at)
                    ))?;
                }
            }
        }
        TokenCommand::Revoke { data, id } => {
            block(async {
                let store = open(&data).await?;
                store.revoke_token(&id, clock::now()).await?;
                store.close().await;
                Ok(())
            })?;
            say(format!("{id} revoked"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `90d`, `12h`, `30m`, `10s`.
fn lifetime(flag: &str, text: &str) -> anyhow::Result<Duration> {
    let bad = || anyhow::anyhow!("{flag}: {text:?} is not a duration; write 90d, 12h, 30m or 10s");
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds = match unit {
        'd' => 86_400,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return Err(bad()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| bad())?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

pub(crate) fn incidents(command: IncidentsCommand) -> Done {
    match command {
        IncidentsCommand::List { remote, json } => {
            let answer = client(&remote).get("/api/v1/incidents")?;
            if json {
                say(&answer)?;
            } else {
                for item in answer["incidents"].as_array().into_iter().flatten() {
                    let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
                    say(format!("{:8} {:18} {:9} {}", text("id"), text("state"), text("severity"), text("title")))?;
                }
            }
        }
        IncidentsCommand::Show { id, remote, json } => {
            let answer = client(&remote).get(&format!("/api/v1/incidents/{id}"))?;
            if json { say(&answer)? } else { show(&answer)? }
        }
        IncidentsCommand::Approve { id, plan, yes, reason, remote, json } => {
            return approve(&id, plan, yes, &reason, &remote, json);
        }
        IncidentsCommand::Reject { id, reason, remote, json } => {
            let answer =
                client(&remote).post(&format!("/api/v1/incidents/{id}/reject"), &json!({ "reason": reason }))?;
            told(&answer, json, &format!("{id} rejected"))?;
        }
        IncidentsCommand::Verdict { id, verdict, cause, remote, json } => {
            let body = json!({ "verdict": verdict, "cause": cause });
            let answer = client(&remote).post(&format!("/api/v1/incidents/{id}/verdict"), &body)?;
            told(&answer, json, &format!("{id}: {verdict}"))?;
        }
        IncidentsCommand::Postmortem { id, remote } => {
            say(client(&remote).get_text(&format!("/api/v1/incidents/{id}/postmortem"))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn approve(id: &str, plan: Option<String>, yes: bool, reason: &str, remote: &Remote, as_json: bool) -> Done {
    let client = client(remote);
    let plan_sha256 = match plan {
        Some(plan) => plan,
        None if !std::io::stdin().is_terminal() => {
            bail!("without a terminal --plan must name the plan's SHA-256; `wardroom incidents show {id}` prints it")
        }
        None => {
            let incident = client.get(&format!("/api/v1/incidents/{id}"))?;
            show(&incident)?;
            let plan = incident["plan_sha256"].as_str().map(str::to_owned);
            let plan = plan.with_context(|| format!("{id} has no plan that waits"))?;
            if !yes && !asked("Approve this plan? [y/N] ")? {
                say("not approved")?;
                return Ok(ExitCode::from(3));
            }
            plan
        }
    };
    let body = json!({ "plan_sha256": plan_sha256, "reason": reason, "channel": "cli" });
    let answer = client.post(&format!("/api/v1/incidents/{id}/approve"), &body)?;
    told(&answer, as_json, &format!("{id} approved"))?;
    Ok(ExitCode::SUCCESS)
}

fn asked(question: &str) -> anyhow::Result<bool> {
    write!(std::io::stdout(), "{question}")?;
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()))
}

fn told(answer: &Value, as_json: bool, words: &str) -> std::io::Result<()> {
    if as_json { say(answer) } else { say(words) }
}

fn show(incident: &Value) -> std::io::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    say(format!("{}  {}  ({})", text(&incident["id"]), text(&incident["title"]), text(&incident["state"])))?;
    if let Some(cause) = incident["hypotheses"].get(0) {
        let sure = cause["confidence"].as_f64().unwrap_or_default() * 100.0;
        say(format!(
            "cause   {} at {} ({sure:.0} %): {}",
            text(&cause["kind"]),
            text(&cause["service"]),
            text(&cause["reasoning"])
        ))?;
    }
    if let Some(plan) = incident["plan"].as_object() {
        say(format!("plan    {} {} of {}", text(&plan["tool"]), text(&plan["operation"]), text(&plan["target"])))?;
        say(format!("        {}; risk {}; {}", text(&plan["diff"]), text(&plan["risk"]), text(&plan["blast_radius"])))?;
        say(format!("        sha256 {}", text(&plan["plan_sha256"])))?;
    }
    for item in incident["timeline"].as_array().into_iter().flatten() {
        say(format!("{}  {}", text(&item["at"]), text(&item["text"])))?;
    }
    Ok(())
}

fn client(remote: &Remote) -> Client {
    Client::new(&remote.url, remote.token.clone())
}

pub(crate) fn audit(command: &AuditCommand) -> Done {
    let AuditCommand::Verify { data, json } = command;
    if !database(data).exists() {
        bail!("there is no audit book in {}", data.display());
    }
    let verdict = block(async { Ok(open(data).await?.verify_audit().await?) });
    // A database that cannot even be read is a broken book, not a failed command.
    let (entries, ok, first_broken, why) = match verdict {
        Ok(verdict) => (verdict.entries, verdict.ok, verdict.first_broken, None),
        Err(error) => (0, false, Some(1), Some(format!("{error:#}"))),
    };
    if *json {
        let mut answer = json!({ "entries": entries, "ok": ok, "first_broken": first_broken });
        if let Some(why) = &why {
            answer["error"] = json!(why);
        }
        say(answer)?;
    } else if ok {
        say(format!("{entries} entries, unbroken"))?;
    } else {
        say(format!(
            "broken at entry {}{}",
            first_broken.unwrap_or_default(),
            why.map(|why| format!(": {why}")).unwrap_or_default()
        ))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn config(command: &ConfigCommand) -> Done {
    match command {
        ConfigCommand::Show { config } => {
            let mut config = configuration::load(config.as_deref())?;
            let secret = |name: &str| {
                let name = name.to_lowercase();
                ["key", "secret", "token", "password", "sas"].iter().any(|word| name.contains(word))
            };
            for (_, value) in config.lake.options.iter_mut().filter(|(name, _)| secret(name)) {
                "(hidden)".clone_into(value);
            }
            say(serde_json::to_string_pretty(&config)?)?;
        }
        ConfigCommand::Check { config } => {
            configuration::load(Some(config))?;
            say(format!("{} can be used", config.display()))?;
        }
        ConfigCommand::Schema => say(serde_json::to_string_pretty(&configuration::schema())?)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn openapi() -> Done {
    say(serde_json::to_string_pretty(&wardroom_roles::openapi())?)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn crash_points() -> Done {
    for point in crash::points() {
        say(point)?;
    }
    Ok(ExitCode::SUCCESS)
}
