//! `wardroom token`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};
use wardroom_roles::data_lock::DataLock;
use wardroom_roles::tokens;

use crate::blocking::{block_on, open_or_create_store, open_store};
use crate::duration::parse_duration;
use crate::output::{CommandResult, print_json, print_line, stdout};

/// Create, list and revoke tokens; works beside a running server.
#[derive(Clone, Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum TokenCommand {
    /// Create a token; it is printed only once.
    Create(CreateArgs),
    /// List all tokens, without their secrets.
    List {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token; takes effect within a second.
    Revoke {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// Id of the token.
        id: String,
    },
}

#[derive(Clone, Debug, Args)]
struct CreateArgs {
    /// The data folder.
    #[arg(long)]
    data: PathBuf,
    /// Principal that the token authenticates.
    #[arg(long)]
    principal: String,
    /// sender, viewer, responder or admin.
    #[arg(long)]
    role: String,
    /// Tenant of the principal.
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Lifetime, such as 90d, 12h, 30m; unlimited if omitted.
    #[arg(long)]
    expires: Option<String>,
    /// Create an empty database although the data folder has data and its database is missing: all other tokens, the
    /// incidents and the audit log are lost.
    #[arg(long)]
    new_database: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: TokenArgs) -> CommandResult {
    match args.command {
        TokenCommand::Create(args) => create(args)?,
        TokenCommand::List { data, json } => list(&data, json)?,
        TokenCommand::Revoke { data, id } => {
            let _lock = DataLock::acquire_beside_server(&data, "token revoke")?;
            block_on(async {
                let store = open_store(&data).await?;
                tokens::revoke(&store, tokens::local_user(), &id).await?;
                store.close().await;
                Ok(())
            })?;
            print_line(format!("{id} revoked"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: CreateArgs) -> anyhow::Result<()> {
    let in_flag = |flag: &'static str| move |error: String| anyhow::anyhow!("--{flag}: {error}");
    let identity = Identity {
        tenant: TenantId::new(args.tenant).map_err(in_flag("tenant"))?,
        principal: Principal::new(args.principal).map_err(in_flag("principal"))?,
        role: AccessRole::parse(&args.role).map_err(in_flag("role"))?,
    };
    let lifetime = args.expires.as_deref().map(|text| parse_duration("--expires", text)).transpose()?;
    let _lock = DataLock::acquire_beside_server(&args.data, "token create")?;
    block_on(async {
        let store =
            if args.new_database { open_or_create_store(&args.data).await } else { open_store(&args.data).await }?;
        let (token, secret) = tokens::create(&store, tokens::local_user(), identity, lifetime).await?;
        let document = json!({ "id": token.id, "token": secret, "tenant": token.identity.tenant,
            "principal": token.identity.principal, "role": token.identity.role, "expires_at": token.expires_at });
        let printed = print_token(args.json, document, secret);
        let revoked = match &printed {
            Ok(()) => Ok(()),
            // It would be in force, and its secret is lost.
            Err(_) => tokens::revoke(&store, tokens::local_user(), &token.id).await,
        };
        store.close().await;
        printed.or_else(|error| {
            let id = &token.id;
            // As text: a closed stdout as the cause would end the command without a message.
            let remedy = match revoked {
                Ok(()) => format!("{id} was revoked again; create another one"),
                Err(failure) => format!("{id} is in force, since it cannot be revoked ({failure}); revoke it"),
            };
            anyhow::bail!("the token cannot be printed: {error}; {remedy}")
        })
    })
}

/// Prints a token with its secret, and flushes stdout, so that an error is found here, not at the end.
fn print_token(as_json: bool, document: Value, secret: String) -> std::io::Result<()> {
    if as_json {
        print_json(document)?;
    } else {
        print_line(secret)?;
    }
    stdout().flush()
}

fn list(data: &Path, json: bool) -> anyhow::Result<()> {
    let tokens = block_on(async { Ok(open_store(data).await?.tokens().await?) })?;
    if json {
        let tokens: Vec<Value> = tokens
            .iter()
            .map(|token| {
                json!({ "id": token.id, "tenant": token.identity.tenant, "principal": token.identity.principal,
                    "role": token.identity.role, "created_at": token.created_at, "expires_at": token.expires_at,
                    "revoked_at": token.revoked_at })
            })
            .collect();
        print_json(json!({ "tokens": tokens }))?;
        return Ok(());
    }
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    for token in tokens {
        let (principal, role) = (&token.identity.principal, token.identity.role.as_str());
        let (expires, revoked) = (time(token.expires_at), time(token.revoked_at));
        print_line(format!("{}  {principal}  {role}  expires {expires}  revoked {revoked}", token.id))?;
    }
    Ok(())
}
