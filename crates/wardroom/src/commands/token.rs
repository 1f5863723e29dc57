//! `wardroom token`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardroom_domain::{AccessRole, Identity, Principal, TenantId};
use wardroom_roles::data_lock::DataLock;
use wardroom_roles::tokens;

use crate::blocking::{block_on, open_or_create_store, open_store};
use wardroom_cli::client::RemoteOutputArgs;
use wardroom_cli::duration::parse_duration;
use wardroom_cli::output::{CommandResult, print_result, print_rows};
use wardroom_cli::presentation::OutputArgs;
use wardroom_cli::token_remote::{self, TOKEN_COLUMNS};

/// Create, list and revoke tokens: in a data folder with --data, also beside its server, else on a server.
#[derive(Clone, Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum TokenCommand {
    /// Create a token; it is printed only once.
    #[command(after_help = "\
Examples:
  wardroom token create --data /var/lib/wardroom --principal alice --role admin
  wardroom token create --principal otel-collector --role sender --expires 90d")]
    Create(CreateArgs),
    /// List all tokens, without their secrets.
    #[command(after_help = "Example:\n  wardroom token list -o wide")]
    List {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Revoke a token; takes effect within a second.
    #[command(after_help = "Example:\n  wardroom token revoke TOKEN_ID")]
    Revoke {
        /// Id of the token.
        id: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// Where the tokens are.
#[derive(Clone, Debug, Args)]
struct PlaceArgs {
    /// The data folder, in place of a server.
    #[arg(long)]
    data: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

#[derive(Clone, Debug, Args)]
struct CreateArgs {
    /// Principal that the token authenticates.
    #[arg(long)]
    principal: String,
    /// sender, viewer, responder or admin.
    #[arg(long)]
    role: String,
    /// Tenant of the principal; by default main with --data, else the caller's.
    #[arg(long)]
    tenant: Option<String>,
    /// Lifetime, such as 90d, 12h, 30m; unlimited if omitted.
    #[arg(long)]
    expires: Option<String>,
    /// Create an empty database although the data folder has data and its database is missing: all other tokens, the
    /// incidents and the audit log are lost.
    #[arg(long, requires = "data")]
    new_database: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(crate) fn run(args: TokenArgs) -> CommandResult {
    match args.command {
        TokenCommand::Create(args) => {
            let Some(data) = &args.place.data else {
                let (tenant, expires) = (args.tenant.as_deref(), args.expires.as_deref());
                let (client, output) = (args.place.remote.client(), &args.place.remote.output);
                return token_remote::create(&client, (&args.principal, &args.role), tenant, expires, output);
            };
            create(data, &args)?;
            Ok(ExitCode::SUCCESS)
        }
        TokenCommand::List { place: PlaceArgs { data, remote } } => match data {
            Some(data) => list(&data, &remote.output),
            None => token_remote::list(&remote.client(), &remote.output),
        },
        TokenCommand::Revoke { id, place: PlaceArgs { data, remote } } => {
            let Some(data) = data else { return token_remote::revoke(&remote.client(), &id, &remote.output) };
            let _lock = DataLock::acquire_beside_server(&data, "token revoke")?;
            block_on(async {
                let store = open_store(&data).await?;
                tokens::revoke(&store, tokens::local_user(), &id).await?;
                store.close().await;
                Ok(())
            })?;
            print_result(&json!({ "id": id, "revoked": true }), format!("{id} revoked"), &remote.output)
        }
    }
}

fn create(data: &Path, args: &CreateArgs) -> anyhow::Result<()> {
    let in_flag = |flag: &'static str| move |error: String| anyhow::anyhow!("--{flag}: {error}");
    let tenant = args.tenant.clone().map_or_else(|| Ok(TenantId::main()), TenantId::new);
    let identity = Identity {
        tenant: tenant.map_err(in_flag("tenant"))?,
        principal: Principal::new(args.principal.clone()).map_err(in_flag("principal"))?,
        role: AccessRole::parse(&args.role).map_err(in_flag("role"))?,
    };
    let lifetime = args.expires.as_deref().map(|text| parse_duration("--expires", text)).transpose()?;
    let _lock = DataLock::acquire_beside_server(data, "token create")?;
    block_on(async {
        let store = if args.new_database { open_or_create_store(data).await } else { open_store(data).await }?;
        let (token, secret) = tokens::create(&store, tokens::local_user(), identity, lifetime).await?;
        let document = json!({ "id": token.id, "token": secret, "tenant": token.identity.tenant,
            "principal": token.identity.principal, "role": token.identity.role, "expires_at": token.expires_at });
        let printed = token_remote::print_token(&document, &args.place.remote.output);
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

fn list(data: &Path, output: &OutputArgs) -> CommandResult {
    let tokens = block_on(async { Ok(open_store(data).await?.tokens().await?) })?;
    let tokens: Vec<Value> = tokens
        .iter()
        .map(|token| {
            json!({ "id": token.id, "tenant": token.identity.tenant, "principal": token.identity.principal,
                "role": token.identity.role, "created_at": token.created_at, "expires_at": token.expires_at,
                "revoked_at": token.revoked_at })
        })
        .collect();
    print_rows(&json!({ "tokens": tokens }), "tokens", TOKEN_COLUMNS, output)
}
