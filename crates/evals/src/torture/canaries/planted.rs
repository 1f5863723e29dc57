//! The secrets and where they are planted.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::{Server, server};

/// Variable with a secret for the executor.
const VARIABLE: &str = "WARDROOM_SECRET_PLANTED";
/// How the targets get their token; each is there twice: one answers, one refuses what changes it.
const WAYS: [&str; 4] = ["inline", "environment", "file", "vault"];

/// A secret.
pub(super) struct Secret {
    /// What it is.
    pub(super) what: String,
    pub(super) value: String,
    /// Whether it is within telemetry, which is stored.
    pub(super) is_telemetry: bool,
}

/// All secrets of a round.
pub(super) struct Planted {
    random: StdRng,
    pub(super) secrets: Vec<Secret>,
    environment: Vec<(String, String)>,
    targets: Vec<String>,
}

impl Planted {
    pub(super) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, secrets: Vec::new(), environment: Vec::new(), targets: Vec::new() }
    }

    /// Makes a secret.
    pub(super) fn add(&mut self, what: &str) -> String {
        let value = format!("canary{:016x}{:016x}", self.random.random::<u64>(), self.random.random::<u64>());
        self.note(what, &value);
        value
    }

    /// Makes a secret that is sent within telemetry.
    pub(super) fn add_telemetry(&mut self, what: &str) -> String {
        let value = self.add(what);
        self.secrets.iter_mut().filter(|secret| secret.value == value).for_each(|secret| secret.is_telemetry = true);
        value
    }

    /// Notes a secret that the product has made.
    pub(super) fn note(&mut self, what: &str, value: &str) {
        self.secrets.push(Secret { what: what.to_owned(), value: value.to_owned(), is_telemetry: false });
    }

    /// Any of the secrets.
    pub(super) fn any(&self) -> &str {
        self.secrets.first().map(|secret| secret.value.as_str()).unwrap_or_default()
    }

    /// Variables of the server's environment.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }

    /// Names of the targets.
    pub(super) fn targets(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().map(String::as_str)
    }

    /// Plants a secret in each way of the executor's file; returns the rest of that file after `targets:`.
    pub(super) fn executor_targets(&mut self, url: &str, folder: &Path) -> anyhow::Result<String> {
        let of_environment = self.add("a secret in the environment");
        self.environment.push((VARIABLE.to_owned(), of_environment));
        let option = self.add("the secret key of a lake");
        self.environment.push(("AWS_SECRET_ACCESS_KEY".to_owned(), option));
        let file = folder.join("planted");
        write_private(&file, &self.add("a secret in a file"))?;
        let vault_token = folder.join("vault-token");
        // The token of Vault was made before its server was started.
        let token = self.secrets.iter().find(|secret| secret.what == "the token of Vault");
        write_private(&vault_token, token.map(|secret| secret.value.as_str()).unwrap_or_default())?;
        let mut text = String::new();
        for way in WAYS {
            let token = match way {
                "environment" => format!("env:{VARIABLE}"),
                "file" => format!("file:{}", file.display()),
                "vault" => "vault:secret/data/planted#password".to_owned(),
                _ => self.add("a secret in the executor's file"),
            };
            for (name, path) in
                [(format!("good-{way}"), "good"), (format!("bad-{way}"), "bad"), (format!("late-{way}"), "late")]
            {
                text += &format!("  - tool: process\n    name: {name}\n    url: {url}/{path}\n    token: {token}\n");
                self.targets.push(name);
            }
        }
        text += &format!(
            "secrets:\n  vault:\n    address: {url}\n    login:\n      token: file:{}\naudit-heads:\n",
            vault_token.display()
        );
        text += &format!("  - url: {url}/heads\n    token: env:{VARIABLE}\n");
        let secret_key = self.add("the secret key of an object store");
        text += &format!(
            "  - url: {url}/bucket\n    s3:\n      region: auto\n      access-key-id: planted\n      secret-access-key: \
             {secret_key}\n"
        );
        Ok(text)
    }
}

fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut out = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(file)?;
    Ok(std::io::Write::write_all(&mut out, text.as_bytes())?)
}

/// Base64, for basic authentication.
pub(super) fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Output and errors of a command, which may fail.
#[expect(clippy::disallowed_methods, reason = "errors of commands are read, too")]
pub(super) fn output(server: &Server, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new(server::program("WARDROOM_BIN"));
    let output = command.args(arguments).current_dir(&server.dir).output()?;
    Ok([output.stdout, output.stderr].concat())
}
