//! Requests to one cluster's API server.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::AuthInfo;
use kube::{Client, Config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::http::{Request, Uri};
use wardroom_respond::ToolError;

use crate::http_client::check_url;
use crate::{Context, Secret, SettingError, tls};

/// Who Wardroom is in the list of managers of an object's fields.
const FIELD_MANAGER: &str = "wardroom";
/// Maximum duration of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A namespace of a Kubernetes cluster, as the executor's configuration declares it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct KubernetesSettings {
    /// URL of the API server.
    pub(crate) url: String,
    /// Token of the service account.
    #[serde(default)]
    pub(crate) token: Option<Secret>,
    /// PEM file with the certificates that sign the API server's.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Namespace of the workloads and pods. Default `default`.
    #[serde(default = "default_namespace")]
    pub(crate) namespace: String,
    /// The only workload that may be changed, such as `deployment/cart`; calls need not name it then. All of the
    /// namespace if absent.
    #[serde(default)]
    pub(crate) workload: Option<String>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

impl KubernetesSettings {
    pub(crate) fn check(&self) -> Result<(), SettingError> {
        check_url(&self.url).map_err(|reason| SettingError::new("url", reason))?;
        if !is_name(&self.namespace) {
            return Err(SettingError::new("namespace", "it is no name of Kubernetes: lower case, digits and hyphens"));
        }
        if self.url.starts_with("http://") && self.token.is_some() && !self.url.contains("://127.0.0.1") {
            let reason = "a token would be sent without encryption; use https://";
            return Err(SettingError::new("url", reason));
        }
        Ok(())
    }

    /// The cluster's address and namespace, for messages.
    pub(crate) fn address(&self) -> String {
        format!("Kubernetes at {}", self.url)
    }
}

/// Whether a text is a name of Kubernetes (RFC 1123), and so may stand in a path.
pub(crate) fn is_name(text: &str) -> bool {
    let is_allowed =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || "-.".contains(character);
    (1..=253).contains(&text.len())
        && text.chars().all(is_allowed)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

/// A connection to one API server.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
}

impl Cluster {
    pub(crate) fn connect(settings: &KubernetesSettings, context: &Context) -> Result<Self, ToolError> {
        tls::install_provider();
        let uri: Uri = settings.url.parse().map_err(|_| ToolError::Invalid("url: it is not a URL".to_owned()))?;
        let mut config = Config::new(uri);
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.root_cert_file.clone_from(&settings.ca_file);
        config.proxy_url = None;
        // The library would repeat what a server or a proxy answers 429, 503 or 504, changes included, and so hide that
        // a budget holds back an eviction, or do a change twice whose answer was lost.
        config.default_retry = false;
        if let Some(token) = &settings.token {
            let token = context.secrets.resolve(token)?;
            config.auth_info = AuthInfo { token: Some(token.as_str().to_owned().into()), ..AuthInfo::default() };
        }
        let client = Client::try_from(config).map_err(|error| ToolError::Invalid(format!("kubernetes: {error}")))?;
        Ok(Self { client })
    }

    /// Reads an object; `None` if it does not exist.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>, ToolError> {
        match self.send("GET", path, None, "").await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(convert(error)),
        }
    }

    /// Reads an object that must exist.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ToolError> {
        self.find(path).await?.ok_or_else(|| ToolError::Invalid(format!("the cluster has no {path}")))
    }

    /// Applies a JSON patch (RFC 6902). In a dry run the server computes the result, with defaults and admission, and
    /// keeps nothing.
    pub(crate) async fn patch(&self, path: &str, patch: &[Value], dry_run: bool) -> Result<Value, ToolError> {
        let query = if dry_run { "&dryRun=All" } else { "" };
        let path = format!("{path}?fieldManager={FIELD_MANAGER}{query}");
        let body = Value::Array(patch.to_vec());
        self.send("PATCH", &path, Some(&body), "application/json-patch+json").await.map_err(convert)
    }

    /// Deletes a pod, if it still is the one with this identifier.
    pub(crate) async fn delete(&self, path: &str, uid: &str) -> Result<(), ToolError> {
        let body = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": uid } });
        match self.send("DELETE", path, Some(&body), "application/json").await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(convert(error)),
        }
    }

    /// Asks for the eviction of a pod; false if its disruption budget allows none now.
    pub(crate) async fn evict(&self, namespace: &str, pod: &str, uid: &str, dry_run: bool) -> Result<bool, ToolError> {
        let mut options = json!({ "preconditions": { "uid": uid } });
        if dry_run {
            options["dryRun"] = json!(["All"]);
        }
        let body = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": pod, "namespace": namespace }, "deleteOptions": options });
        let query = if dry_run { "?dryRun=All" } else { "" };
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction{query}");
        match self.send("POST", &path, Some(&body), "application/json").await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(false),
            // The pod has gone by itself.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            Err(error) => Err(convert(error)),
        }
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>, media: &str) -> Result<Value, kube::Error> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("Content-Type", media);
        }
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(body).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

/// Converts an error: a conflict says that the object has changed; any other refusal is about the call, unless the
/// server is overloaded or broken.
fn convert(error: kube::Error) -> ToolError {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => ToolError::Stale(status.message.clone()),
            // 0: what stands before the server answered, in a form of its own.
            0 | 429 | 500..=599 => ToolError::Unavailable(format!("{} ({})", status.message, status.code)),
            code => ToolError::Invalid(format!("Kubernetes refuses: {} ({code} {})", status.message, status.reason)),
        },
        kube::Error::SerdeError(error) => ToolError::Unavailable(format!("the answer is not JSON: {error}")),
        error => ToolError::Unavailable(error.to_string()),
    }
}
