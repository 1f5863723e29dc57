//! Requests to Google's APIs about one project.

use serde_json::{Value, json};
use wardroom_domain::canonical::sha256_hex;
use wardroom_respond::ToolError;

use super::gcp_operations::{Action, Share, shares_of, shares_text, short_name, targets_of};
use super::gcp_settings::GcpSettings;
use crate::Context;
use crate::rest::{Answer, Rest};

/// Annotation of a Cloud Run service with the idempotency key of the last operation.
const KEY_ANNOTATION: &str = "wardroom.dev/last-operation";

/// A project with connections to its APIs.
pub(super) struct Project {
    settings: GcpSettings,
    run: Rest,
    compute: Rest,
    container: Rest,
}

impl Project {
    pub(super) fn open(settings: &GcpSettings, context: &Context) -> Result<Self, ToolError> {
        let token = match &settings.access_token {
            Some(token) => context.secrets.resolve(token)?.as_str().to_owned(),
            None => {
                let token = crate::secrets::machine_token()?;
                context.secrets.remember(&token);
                token
            }
        };
        let rest = |name, url: &str| Rest {
            http: context.http(),
            name,
            url: url.trim_end_matches('/').to_owned(),
            token: Some(token.clone()),
            headers: &[],
        };
        Ok(Self {
            run: rest("Cloud Run", &settings.run_url),
            compute: rest("Compute Engine", &settings.compute_url),
            container: rest("Kubernetes Engine", &settings.container_url),
            settings: settings.clone(),
        })
    }

    pub(super) fn service(&self, service: &str) -> Result<Value, ToolError> {
        self.run.get(&self.service_path(service))
    }

    /// Checks that a revision of a service exists and is ready.
    pub(super) fn check_revision(&self, service: &str, share: &Share) -> Result<(), ToolError> {
        let Some(revision) = &share.revision else { return Ok(()) };
        let path = format!("{}/revisions/{revision}", self.service_path(service));
        let found = self.run.find(&path)?;
        let found = found.ok_or_else(|| ToolError::Invalid(format!("service {service} has no revision {revision}")))?;
        let has_failed = |condition: &Value| condition["type"] == "Ready" && condition["state"] == "CONDITION_FAILED";
        if found["conditions"].as_array().into_iter().flatten().any(has_failed) {
            return Err(ToolError::Invalid(format!("revision {revision} is not ready, and would answer nothing")));
        }
        Ok(())
    }

    pub(super) fn instance(&self, instance: &str) -> Result<Value, ToolError> {
        let path = self.instance_path(instance)?;
        self.compute.get(&path)
    }

    /// The node pool, and the numbers of nodes that its instance groups are to have.
    pub(super) fn node_pool(&self, cluster: &str, node_pool: &str) -> Result<(Value, Vec<u64>), ToolError> {
        let pool = self.container.get(&self.node_pool_path(cluster, node_pool))?;
        let mut sizes = Vec::new();
        for url in pool["instanceGroupUrls"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // Only the path is taken: the host stays the one that the configuration names.
            let (_, path) = url.split_once("/projects/").ok_or_else(|| {
                ToolError::Unavailable(format!("an instance group of {node_pool} has the address {url:?}"))
            })?;
            let path = path.replace("/instanceGroups/", "/instanceGroupManagers/");
            let group = self.compute.get(&format!("/compute/v1/projects/{path}"))?;
            sizes.push(group["targetSize"].as_u64().unwrap_or_default());
        }
        if sizes.is_empty() {
            return Err(ToolError::Invalid(format!("node pool {node_pool} has no instance groups")));
        }
        Ok((pool, sizes))
    }

    /// The precondition of a plan.
    pub(super) fn state(&self, action: &Action) -> Result<String, ToolError> {
        Ok(match action {
            Action::SetTraffic { service, .. } | Action::ReadService { service } => {
                let found = self.service(service)?;
                let shares = shares_text(&shares_of(&found));
                let generation = found["generation"].as_str().unwrap_or_default();
                format!("generation={generation} traffic={shares} after={}", last_key(&found))
            }
            Action::ResetInstance { instance } => {
                let found = self.instance(instance)?;
                let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
                format!("id={} status={} started={}", text("id"), text("status"), text("lastStartTimestamp"))
            }
            Action::SetNodes { cluster, node_pool, .. } => {
                let (pool, sizes) = self.node_pool(cluster, node_pool)?;
                let status = pool["status"].as_str().unwrap_or_default();
                format!("pool={node_pool} status={status} sizes={sizes:?}")
            }
        })
    }

    /// Sends the request that an action is.
    pub(super) fn act(&self, action: &Action, key: &str) -> Result<Answer, ToolError> {
        match action {
            Action::SetTraffic { service, traffic } => {
                let found = self.service(service)?;
                let mut annotations = found["annotations"].as_object().cloned().unwrap_or_default();
                annotations.insert(KEY_ANNOTATION.to_owned(), json!(key));
                // The etag makes a change in between a conflict.
                let body = json!({ "name": found["name"], "etag": found["etag"], "annotations": annotations,
                    "traffic": targets_of(traffic) });
                let path = format!("{}?updateMask=traffic,annotations", self.service_path(service));
                self.run.send("PATCH", &path, Some(&body))
            }
            Action::ResetInstance { instance } => {
                let path = format!("{}/reset?requestId={}", self.instance_path(instance)?, request_id(key));
                self.compute.send("POST", &path, None)
            }
            Action::SetNodes { cluster, node_pool, nodes } => {
                let path = format!("{}:setSize", self.node_pool_path(cluster, node_pool));
                self.container.send("POST", &path, Some(&json!({ "nodeCount": nodes })))
            }
            Action::ReadService { .. } => Err(ToolError::Invalid("service only reads".to_owned())),
        }
    }

    /// The operation that a reset with a key started, if there is one.
    pub(super) fn reset_of_key(&self, instance: &str, key: &str) -> Result<Option<Value>, ToolError> {
        let path = self.zone_path()?;
        let id = request_id(key);
        let filter = format!("clientOperationId%20%3D%20%22{id}%22");
        let list = self.compute.get(&format!("{path}/operations?filter={filter}"))?;
        let is_it = |operation: &&Value| {
            let target = operation["targetLink"].as_str().map(short_name);
            operation["clientOperationId"] == id && target.as_deref() == Some(instance)
        };
        Ok(list["items"].as_array().into_iter().flatten().find(is_it).cloned())
    }

    fn service_path(&self, service: &str) -> String {
        let GcpSettings { project, region, .. } = &self.settings;
        format!("/v2/projects/{project}/locations/{region}/services/{service}")
    }

    fn zone_path(&self) -> Result<String, ToolError> {
        let zone = self.settings.zone.as_ref();
        let zone =
            zone.ok_or_else(|| ToolError::Invalid("this target names no `zone`, where its instances are".to_owned()))?;
        Ok(format!("/compute/v1/projects/{}/zones/{zone}", self.settings.project))
    }

    fn instance_path(&self, instance: &str) -> Result<String, ToolError> {
        Ok(format!("{}/instances/{instance}", self.zone_path()?))
    }

    fn node_pool_path(&self, cluster: &str, node_pool: &str) -> String {
        let GcpSettings { project, region, cluster_location, .. } = &self.settings;
        let location = cluster_location.as_ref().unwrap_or(region);
        format!("/v1/projects/{project}/locations/{location}/clusters/{cluster}/nodePools/{node_pool}")
    }
}

/// The idempotency key of the last operation on a Cloud Run service.
pub(super) fn last_key(service: &Value) -> &str {
    service["annotations"][KEY_ANNOTATION].as_str().unwrap_or("nothing")
}

/// A key as Compute Engine takes it: a UUID, version 8 (RFC 9562), made of the key's hash.
fn request_id(key: &str) -> String {
    let hash = sha256_hex(key.as_bytes());
    let part = |range: std::ops::Range<usize>| hash.get(range).unwrap_or_default().to_owned();
    format!("{}-{}-8{}-a{}-{}", part(0..8), part(8..12), part(13..16), part(17..20), part(20..32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_uuid_that_only_depends_on_the_key() {
        let id = request_id("key");
        assert_eq!(id, request_id("key"));
        assert_ne!(id, request_id("key2"));
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
    }
}
