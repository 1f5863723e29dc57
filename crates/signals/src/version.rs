//! The version that a series announces: `…_build_info`, `target_info`, images of containers.

use wardroom_domain::Entity;

use crate::context::Context;
use crate::convention_index::Tables;

/// Labels with a version, best first.
const VERSIONS: [&str; 8] = [
    "service_version",
    "version",
    "app_version",
    "redis_version",
    "short_version",
    "server_version",
    "build_version",
    "git_version",
];
/// Labels with the commit that was built.
const COMMITS: [&str; 6] = ["commit", "revision", "git_commit", "git_sha", "vcs_ref", "commit_sha"];
/// Longest part of a commit that is shown, in characters.
const SHOWN_COMMIT: usize = 12;
/// Beginnings of names that announce the version of a runtime, library or exporter.
const NOT_THE_ENTITYS: [&str; 16] = [
    "go_",
    "python_",
    "jvm_",
    "nodejs_",
    "ruby_",
    "dotnet_",
    "process_",
    "node_",
    "flask_",
    "otel_",
    "kube_",
    "scrape_",
    "promhttp_",
    "machine_",
    "cadvisor_",
    "django_",
];

/// Returns the version that a series announces, and of what.
pub(crate) fn version_of(tables: &Tables, context: &Context<'_>) -> Option<(Entity, String)> {
    let name = context.view.get("__name__")?;
    let image =
        || context.view.value(&["image_spec", "image", "container_image_name"]).filter(|image| !image.is_empty());
    if name == "kube_pod_container_info" {
        let meaning = crate::series::meaning(tables, context, None);
        return Some((meaning.entity?, image()?.to_owned()));
    }
    let announces = name.ends_with("_info") || name == "target_info" || name == "pg_static";
    let is_other = name.contains("exporter") || NOT_THE_ENTITYS.iter().any(|prefix| name.starts_with(prefix));
    if !announces || is_other {
        return None;
    }
    let version = context.view.value(&VERSIONS);
    let commit = context.view.value(&COMMITS).map(|commit| commit.chars().take(SHOWN_COMMIT).collect::<String>());
    let version = match (version, commit) {
        (Some(version), Some(commit)) => format!("{version}+{commit}"),
        (Some(version), None) => version.to_owned(),
        (None, Some(commit)) => commit,
        (None, None) => return None,
    };
    let entity = crate::series::meaning(tables, context, None).entity?;
    Some((entity, version))
}
