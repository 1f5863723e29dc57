//! Runs the demo shop as an executor target: no fault, no telemetry, every effect recorded in its `effects.jsonl`.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use wardroom_domain::Timestamp;

use crate::server::{command, program};

/// A running shop (`SHOP_BIN`). Its control token is `control`.
pub struct Shop {
    /// URL of the control API.
    pub control: String,
    dir: PathBuf,
    child: Child,
}

impl Shop {
    /// Starts a shop in `dir`, with additional arguments.
    ///
    /// # Errors
    /// Returns an error if the shop does not start within 30 s.
    pub fn start(dir: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let token = dir.join("token");
        std::fs::write(&token, "control")?;
        let child = command(&program("SHOP_BIN"))
            .args(["run", "--fault", "none", "--rps", "1", "--control", "127.0.0.1:0", "--dir"])
            .arg(dir)
            .arg("--control-token-file")
            .arg(&token)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut shop = Self { control: String::new(), dir: dir.to_owned(), child };
        for _ in 0..600 {
            if let Ok(text) = std::fs::read_to_string(dir.join("run.json")) {
                let run_info: Value = serde_json::from_str(&text)?;
                run_info["control"].as_str().context("the shop has no control address")?.clone_into(&mut shop.control);
                return Ok(shop);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the shop does not start")
    }

    /// Returns one service as a YAML list item of the executor's `targets`.
    pub fn target(&self, service: &str) -> String {
        format!("  - tool: process\n    name: {service}\n    url: {}\n    token: control\n", self.control)
    }

    /// Returns the idempotency keys of the effects since `since`.
    ///
    /// # Errors
    /// Returns an error if `effects.jsonl` is malformed.
    pub fn effects_since(&self, since: Timestamp) -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(self.dir.join("effects.jsonl")).unwrap_or_default();
        let mut keys = Vec::new();
        for line in text.lines() {
            let effect: Value = serde_json::from_str(line)?;
            let at = Timestamp::parse(effect["ts"].as_str().unwrap_or_default()).map_err(anyhow::Error::msg)?;
            if at >= since {
                keys.push(effect["key"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok(keys)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // If `kill` cannot be run there is nothing to wait for.
        if command(Path::new("kill")).arg(self.child.id().to_string()).status().is_ok() {
            drop(self.child.wait());
        }
    }
}
