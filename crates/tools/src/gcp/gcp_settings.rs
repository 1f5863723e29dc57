//! A target of the tool: one project, with a region and a zone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http_client::check_url;
use crate::{Secret, SettingError};

/// A project of Google Cloud, as the executor's configuration declares it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct GcpSettings {
    /// Identifier of the project.
    pub(super) project: String,
    /// Region of Cloud Run services and, unless `cluster-location` is given, of GKE clusters.
    pub(super) region: String,
    /// Zone of instances.
    #[serde(default)]
    pub(super) zone: Option<String>,
    /// Location of GKE clusters: a region or a zone. Default: the region.
    #[serde(default)]
    pub(super) cluster_location: Option<String>,
    /// Access token, best as a file that something renews. Default: that of the machine's service account.
    #[serde(default)]
    pub(super) access_token: Option<Secret>,
    /// Base URL of the Cloud Run API. Default `https://run.googleapis.com`.
    #[serde(default = "default_run_url")]
    pub(super) run_url: String,
    /// Base URL of the Compute Engine API. Default `https://compute.googleapis.com`.
    #[serde(default = "default_compute_url")]
    pub(super) compute_url: String,
    /// Base URL of the Kubernetes Engine API. Default `https://container.googleapis.com`.
    #[serde(default = "default_container_url")]
    pub(super) container_url: String,
}

fn default_run_url() -> String {
    "https://run.googleapis.com".to_owned()
}

fn default_compute_url() -> String {
    "https://compute.googleapis.com".to_owned()
}

fn default_container_url() -> String {
    "https://container.googleapis.com".to_owned()
}

impl GcpSettings {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        for (field, url) in
            [("run-url", &self.run_url), ("compute-url", &self.compute_url), ("container-url", &self.container_url)]
        {
            check_url(url).map_err(|reason| SettingError::new(field, reason))?;
        }
        let is_name =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-:.".contains(c));
        let names = [
            ("project", Some(&self.project)),
            ("region", Some(&self.region)),
            ("zone", self.zone.as_ref()),
            ("cluster-location", self.cluster_location.as_ref()),
        ];
        for (field, name) in names {
            if name.is_some_and(|name| !is_name(name)) {
                return Err(SettingError::new(field, "it is no name of Google Cloud: letters, digits and hyphens"));
            }
        }
        self.access_token.as_ref().map_or(Ok(()), |token| token.check("access-token"))
    }
}
