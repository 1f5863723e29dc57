//! `wardroom bus new-epoch`: lets a bus that has lost records continue after the highest offset that was processed.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{Principal, TenantId};
use wardroom_roles::bus_epoch::{NewEpoch, new_epoch};
use wardroom_roles::clock;
use wardroom_roles::config;
use wardroom_roles::data_lock::DataLock;

use crate::blocking::{block_on, open_store};
use crate::logging;
use wardroom_cli::output::{CommandResult, print_result};
use wardroom_cli::presentation::OutputArgs;

#[derive(Clone, Debug, Args)]
pub(crate) struct NewEpochArgs {
    /// The data folder.
    #[arg(long)]
    data: PathBuf,
    /// Configuration file (YAML) of the server.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &NewEpochArgs) -> CommandResult {
    logging::init_warnings()?;
    let config = config::load(args.config.as_deref())?;
    anyhow::ensure!(args.data.is_dir(), "--data: {} is not a data folder", args.data.display());
    let _lock = DataLock::acquire(&args.data, "bus new-epoch")?;
    let NewEpoch { missing_from, continues_at } = block_on(async {
        let store = open_store(&args.data).await?;
        let epoch = new_epoch(&config, &args.data).await?;
        store.append_audit(&audit_entry(epoch)).await?;
        store.close().await;
        Ok(epoch)
    })?;
    let message = format!(
        "the bus continues at offset {continues_at}; of the records from {missing_from} up to there only what \
         detection and the tables have already processed remains"
    );
    print_result(&json!({ "missing_from": missing_from, "continues_at": continues_at }), message, &args.output)
}

fn audit_entry(epoch: NewEpoch) -> AuditEntry {
    AuditEntry {
        at: clock::now(),
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        agent: "bus new-epoch".to_owned(),
        incident_id: None,
        action: "bus_new_epoch".to_owned(),
        decision: json!({ "missing_from": epoch.missing_from, "continues_at": epoch.continues_at }),
        approved_by: None,
    }
}
