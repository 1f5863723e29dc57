//! `redis`: diagnostics of a Redis or Valkey server, and the end of one client's connection.
//!
//! Problem: one client that is blocked in a script, subscribed without reading, or leaking connections takes memory and
//! slots from all others. Model: the plan names one client by the server's process and the client's number, which that
//! process gives once; who the client is is part of the precondition. Guarantees: no data is read or written, links of
//! the replication are never cut, and the end of a client cannot happen twice; a note of ours says which execution
//! began.

mod redis_client;
mod redis_connection;
mod server_figures;

use std::time::Duration;

use redis::{Connection, cmd};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Risk, Run, Tool, ToolError, ToolSpec, operation, parse_arguments};

use self::redis_client::RedisClient;
use crate::marks::Mark;
use crate::{Context, Declared, SettingError, ToolKind};

use redis_connection::RedisSettings;

/// The `redis` tool.
#[derive(Debug)]
pub(crate) struct RedisTool {
    targets: Vec<Declared<RedisSettings>>,
    context: Context,
}

/// Arguments of `kill_client`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClientArguments {
    /// Number of the client, as `clients` shows it.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    id: u64,
}

/// What the server says of a client.
struct Found {
    /// Identifier of the server's process.
    run_id: String,
    /// Number of this tool's own connection.
    own_id: u64,
    /// The client, if it is connected.
    client: Option<RedisClient>,
}

impl Found {
    fn fingerprint(&self) -> String {
        self.client.as_ref().map_or_else(|| "no such client".to_owned(), |client| client.fingerprint(&self.run_id))
    }

    /// Whether the client of a precondition is connected, whatever it does now.
    fn is_connected(&self, precondition: &str) -> bool {
        let identity = |client: &RedisClient| format!("run={} id={} ", self.run_id, client.field("id"));
        self.client.as_ref().is_some_and(|client| precondition.starts_with(&identity(client)))
    }
}

impl RedisTool {
    fn settings(&self, call: &ToolCall) -> Result<&RedisSettings, ToolError> {
        let declared = self.targets.iter().find(|target| target.name() == call.target);
        let declared =
            declared.ok_or_else(|| ToolError::Invalid(format!("target {:?} is not declared", call.target)))?;
        Ok(&declared.settings)
    }

    /// Connects and reads what the server says of the call's client.
    fn find(&self, call: &ToolCall) -> Result<(Connection, Found), ToolError> {
        let settings = self.settings(call)?;
        let ClientArguments { id } = parse_arguments(&call.arguments)?;
        let mut connection = settings.connect(&self.context)?;
        let found = find(&mut connection, id).map_err(|error| settings.error(&error))?;
        Ok((connection, found))
    }
}

fn find(connection: &mut Connection, id: u64) -> redis::RedisResult<Found> {
    let server: String = cmd("INFO").arg("server").query(connection)?;
    let run_id = server.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or("unknown").trim().to_owned();
    let own_id = cmd("CLIENT").arg("ID").query(connection)?;
    let list: String = cmd("CLIENT").arg("LIST").arg("ID").arg(id).query(connection)?;
    Ok(Found { run_id, own_id, client: RedisClient::parse_list(&list).pop() })
}

impl ToolKind for RedisTool {
    const NAME: &'static str = "redis";
    type Settings = RedisSettings;

    fn check_settings(settings: &RedisSettings) -> Result<(), SettingError> {
        settings.password.as_ref().map_or(Ok(()), |password| password.check("password"))
    }

    fn new(targets: Vec<Declared<RedisSettings>>, context: Context) -> Self {
        Self { targets, context }
    }
}

impl Tool for RedisTool {
    fn spec(&self) -> ToolSpec {
        let kill = "end the connection of one client";
        let mut operations = vec![operation::<ClientArguments>("kill_client", kill, Risk::Low, false)];
        operations.extend(server_figures::operations());
        ToolSpec::new(Self::NAME, "a Redis or Valkey server", operations)
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        if server_figures::check(&call.operation, &call.arguments)? {
            return Ok(());
        }
        match call.operation.as_str() {
            "kill_client" => parse_arguments::<ClientArguments>(&call.arguments).map(drop),
            other => Err(ToolError::Invalid(format!("redis has no operation {other:?}"))),
        }
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let (_, found) = self.find(call)?;
        let precondition = found.fingerprint();
        let client = found.client.ok_or_else(|| {
            let id = call.arguments.get("id").cloned().unwrap_or_default();
            ToolError::Invalid(format!("there is no client {id}; `clients` lists those that there are"))
        })?;
        if let Some(refusal) = client.refusal(found.own_id) {
            return Err(ToolError::Invalid(refusal));
        }
        Ok(DryRun {
            diff: format!("the connection is ended: {}", client.description()),
            blast_radius: "1 client, which sees its connection as lost".to_owned(),
            affected: Some(1),
            risk: Risk::Low.as_str().to_owned(),
            reversible: false,
            precondition,
            undo: None,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let settings = self.settings(call)?;
        let ClientArguments { id } = parse_arguments(&call.arguments)?;
        let (mut connection, found) = self.find(call)?;
        let marks = self.context.marks(Self::NAME);
        if !found.is_connected(run.precondition) {
            return match marks.get(run.key)? {
                Some(_) => Ok(Applied::new(Outcome::Applied, format!("client {id} was disconnected before"))),
                None => Err(ToolError::Stale(format!("client {id} has disconnected by itself"))),
            };
        }
        if found.fingerprint() != run.precondition {
            return Err(ToolError::Stale(found.fingerprint()));
        }
        if let Some(refusal) = found.client.as_ref().and_then(|client| client.refusal(found.own_id)) {
            return Err(ToolError::Invalid(refusal));
        }
        marks.set(run.key, &Mark { before: run.precondition.to_owned(), after: None })?;
        let killed: u64 = cmd("CLIENT")
            .arg("KILL")
            .arg("ID")
            .arg(id)
            .query(&mut connection)
            .map_err(|error| settings.error(&error))?;
        // The number of killed clients is not trusted: the list says whether the client is still there.
        let found = find(&mut connection, id).map_err(|error| settings.error(&error))?;
        Ok(match (found.is_connected(run.precondition), killed) {
            (false, _) => Applied::new(Outcome::Applied, format!("client {id} is disconnected")),
            (true, 0) => Applied::new(Outcome::NotApplied, format!("the server did not find client {id}")),
            (true, _) => Applied::new(Outcome::Unknown, format!("client {id} is marked, and still connected")),
        })
    }

    fn probe(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        if self.context.marks(Self::NAME).get(key)?.is_none() {
            return Ok(Outcome::NotApplied);
        }
        let (_, found) = self.find(call)?;
        Ok(if found.is_connected(precondition) { Outcome::NotApplied } else { Outcome::Applied })
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        self.find(call).map(|(_, found)| found.fingerprint())
    }

    fn read(&self, call: &ToolCall, _timeout: Duration) -> Result<Value, ToolError> {
        let settings = self.settings(call)?;
        let mut connection = settings.connect(&self.context)?;
        server_figures::run(&mut connection, &call.operation, &call.arguments, |error| settings.error(error))
    }
}
