//! `wardroom token` on a running server.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use crate::client::Client;
use crate::columns::Column;
use crate::duration::parse_duration;
use crate::output::{CommandResult, print_document, print_line, print_result, print_rows, stdout};
use crate::presentation::OutputArgs;

const SECONDS_PER_DAY: u64 = 86_400;

/// Columns of the list of tokens.
pub const TOKEN_COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::text("TENANT", "/tenant").wide(),
    Column::text("PRINCIPAL", "/principal"),
    Column::text("ROLE", "/role"),
    Column::time("CREATED", "/created_at"),
    Column::time("EXPIRES", "/expires_at"),
    Column::time("REVOKED", "/revoked_at"),
];

/// Creates a token; it is printed only once. An absent tenant is the caller's, an absent lifetime no limit.
///
/// # Errors
/// Returns an error if the server does not accept it, or stdout cannot be written; the token is revoked again then.
pub fn create(
    client: &Client,
    (principal, role): (&str, &str),
    tenant: Option<&str>,
    lifetime: Option<&str>,
    output: &OutputArgs,
) -> CommandResult {
    let days = lifetime.map(|lifetime| whole_days("--expires", lifetime)).transpose()?;
    let body = json!({ "principal": principal, "role": role, "tenant": tenant, "expires_days": days });
    let token = client.post("/api/v1/tokens", &body)?;
    if let Err(error) = print_token(&token, output) {
        let id = token["id"].as_str().unwrap_or_default();
        let revoked = client.post(&format!("/api/v1/tokens/{id}/revoke"), &json!({}));
        // As text: a closed stdout as the cause would end the command without a message.
        let remedy = match revoked {
            Ok(_) => format!("{id} was revoked again; create another one"),
            Err(failure) => format!("{id} is in force, since it cannot be revoked ({failure}); revoke it"),
        };
        anyhow::bail!("the token cannot be printed: {error}; {remedy}");
    }
    Ok(ExitCode::SUCCESS)
}

/// A server has lifetimes in days.
fn whole_days(flag: &str, lifetime: &str) -> anyhow::Result<u64> {
    let seconds = parse_duration(flag, lifetime)?.as_secs();
    anyhow::ensure!(
        seconds > 0 && seconds % SECONDS_PER_DAY == 0,
        "{flag}: {lifetime:?} is not a number of whole days such as 90d; with --data it may be shorter"
    );
    Ok(seconds / SECONDS_PER_DAY)
}

/// Prints a token with its secret, and flushes stdout, so that an error is found here, not at the end.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn print_token(token: &Value, output: &OutputArgs) -> anyhow::Result<()> {
    if output.is_document() {
        print_document(token, &output.presentation())?;
    } else {
        print_line(token["token"].as_str().context("the response has no token")?)?;
    }
    Ok(stdout().flush()?)
}

/// Lists tokens, without their secrets.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list(client: &Client, output: &OutputArgs) -> CommandResult {
    print_rows(&client.list("/api/v1/tokens", "tokens", &[], usize::MAX)?, "tokens", TOKEN_COLUMNS, output)
}

/// Revokes a token.
///
/// # Errors
/// Returns an error if there is none with this id, or the server does not answer.
pub fn revoke(client: &Client, id: &str, output: &OutputArgs) -> CommandResult {
    client.post(&format!("/api/v1/tokens/{id}/revoke"), &json!({}))?;
    print_result(&json!({ "id": id, "revoked": true }), format!("{id} revoked"), output)
}
