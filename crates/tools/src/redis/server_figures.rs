//! Read-only diagnostics of the server, as JSON.

use redis::{Connection, RedisResult, cmd};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wardroom_respond::{NoArguments, Operation, ToolError, parse_arguments, read_operation};

use super::redis_client::RedisClient;

/// Sections of `INFO`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Section {
    Server,
    Clients,
    Memory,
    Persistence,
    Stats,
    Replication,
    Cpu,
    Commandstats,
    Errorstats,
    Keyspace,
}

/// Arguments of `info`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InfoArguments {
    /// Section of `INFO`.
    section: Section,
}

/// Arguments of a diagnosis that returns a list.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListArguments {
    /// Maximum number of rows. Default 50.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 200))]
    limit: usize,
}

const fn default_limit() -> usize {
    50
}

/// Returns the operations of the diagnoses.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        read_operation::<InfoArguments>("info", "one section of the server's own figures"),
        read_operation::<ListArguments>("clients", "connected clients, those with the largest buffers first"),
        read_operation::<ListArguments>("slowlog", "the slowest commands, with the first key and no other data"),
        read_operation::<NoArguments>("latency", "latest and highest latency of each event that the server monitors"),
        read_operation::<NoArguments>("memory", "how the server's memory is used"),
    ]
}

/// Checks the arguments of a diagnosis; false if there is none of this name.
pub(super) fn check(name: &str, arguments: &Map<String, Value>) -> Result<bool, ToolError> {
    match name {
        "info" => parse_arguments::<InfoArguments>(arguments).map(drop)?,
        "clients" | "slowlog" => parse_arguments::<ListArguments>(arguments).map(drop)?,
        "latency" | "memory" => parse_arguments::<NoArguments>(arguments).map(drop)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Runs a diagnosis whose arguments were checked.
pub(super) fn run(
    connection: &mut Connection,
    name: &str,
    arguments: &Map<String, Value>,
    convert: impl Fn(&redis::RedisError) -> ToolError,
) -> Result<Value, ToolError> {
    let result = match name {
        "info" => {
            let InfoArguments { section } = parse_arguments(arguments)?;
            info(connection, &json!(section))
        }
        "clients" => clients(connection, parse_arguments::<ListArguments>(arguments)?.limit),
        "slowlog" => slowlog(connection, parse_arguments::<ListArguments>(arguments)?.limit),
        "latency" => latency(connection),
        "memory" => memory(connection),
        other => return Err(ToolError::Invalid(format!("redis has no diagnosis {other:?}"))),
    };
    result.map_err(|error| convert(&error))
}

fn info(connection: &mut Connection, section: &Value) -> RedisResult<Value> {
    let text: String = cmd("INFO").arg(section.as_str().unwrap_or("server")).query(connection)?;
    Ok(Value::Object(parse_info(&text)))
}

/// Parses `name:value` lines; values that are numbers become numbers.
fn parse_info(text: &str) -> Map<String, Value> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.trim_end().split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), number_or_text(value))).collect()
}

fn number_or_text(value: &str) -> Value {
    serde_json::from_str(value).ok().filter(Value::is_number).unwrap_or_else(|| value.into())
}

fn clients(connection: &mut Connection, limit: usize) -> RedisResult<Value> {
    let text: String = cmd("CLIENT").arg("LIST").query(connection)?;
    let mut clients = RedisClient::parse_list(&text);
    let bytes = |client: &RedisClient| -> u64 {
        ["qbuf", "omem"].iter().filter_map(|field| client.field(field).parse::<u64>().ok()).sum()
    };
    clients.sort_by_key(|client| std::cmp::Reverse(bytes(client)));
    let total = clients.len();
    let rows: Vec<Value> = clients.iter().take(limit).map(row).collect();
    Ok(json!({ "clients": total, "rows": rows }))
}

fn row(client: &RedisClient) -> Value {
    let shown = ["id", "addr", "name", "user", "age", "idle", "flags", "db", "cmd", "qbuf", "omem", "tot-mem"];
    let fields = shown.iter().filter(|field| client.fields.contains_key(**field));
    fields.map(|field| ((*field).to_owned(), number_or_text(client.field(field)))).collect::<Map<_, _>>().into()
}

/// An entry of the slow log: id, time in s, duration in µs, command with its arguments, address, name of the client.
type SlowCommand = (u64, i64, u64, Vec<String>, String, String);

fn slowlog(connection: &mut Connection, limit: usize) -> RedisResult<Value> {
    let entries: Vec<SlowCommand> = cmd("SLOWLOG").arg("GET").arg(limit).query(connection)?;
    let rows = entries.iter().map(|(id, at, microseconds, command, address, name)| {
        // Arguments after the key are the application's data.
        let shown: Vec<&str> = command.iter().take(2).map(String::as_str).collect();
        json!({ "id": id, "at_seconds": at, "duration_us": microseconds, "command": shown.join(" "),
            "further_arguments": command.len().saturating_sub(2), "address": address, "client": name })
    });
    Ok(json!({ "rows": rows.collect::<Vec<_>>() }))
}

fn latency(connection: &mut Connection) -> RedisResult<Value> {
    let events: Vec<(String, i64, u64, u64)> = cmd("LATENCY").arg("LATEST").query(connection)?;
    let rows = events.iter().map(|(event, at, latest, highest)| {
        json!({ "event": event, "at_seconds": at, "latest_ms": latest, "highest_ms": highest })
    });
    Ok(json!({ "rows": rows.collect::<Vec<_>>() }))
}

fn memory(connection: &mut Connection) -> RedisResult<Value> {
    let text: String = cmd("INFO").arg("memory").query(connection)?;
    let advice: String = cmd("MEMORY").arg("DOCTOR").query(connection)?;
    Ok(json!({ "figures": parse_info(&text), "advice": advice }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_numbers_and_comments_are_skipped() {
        let figures = parse_info("# Memory\r\nused_memory:1024\r\nmem_fragmentation_ratio:1.5\r\nrole:master\r\n\r\n");
        assert_eq!(
            Value::Object(figures),
            json!({ "used_memory": 1024, "mem_fragmentation_ratio": 1.5, "role": "master" })
        );
    }
}
