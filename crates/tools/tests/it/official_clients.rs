//! The vendors' own clients accept the servers that the tools are tested against: a server that only pleases the tool
//! proves nothing. The clients' versions are pinned beside those of the other client programs.

use std::path::Path;
use std::process::Command;

use wardroom_testing::DescribedApi;
use wardroom_testing::server::program;

use super::support::github_repository::{self, GithubRepository};
use super::support::google_cloud::{self, GoogleCloud};
use super::support::kubernetes_cluster::{self, KubernetesCluster};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients");

#[test]
fn the_official_client_of_kubernetes_accepts_the_cluster() {
    let cluster = KubernetesCluster::start();
    accepts(python("kubernetes_client.py"), &cluster.api, kubernetes_cluster::TOKEN);
    assert_eq!(cluster.state().effects.len(), 3, "{:?}", cluster.state().effects);
}

#[test]
fn the_official_client_of_google_accepts_the_project() {
    let project = GoogleCloud::start();
    accepts(python("google_client.py"), &project.api, google_cloud::TOKEN);
    assert_eq!(project.state().effects, ["traffic", "reset", "size 4"]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests start programs")]
fn the_official_client_of_github_accepts_the_repository() {
    let repository = GithubRepository::start();
    let mut node = Command::new("node");
    node.arg(Path::new(SCRIPTS).join("github_client.mjs"));
    let modules = program("CLIENT_NODE").join("node_modules");
    accepts_with(node, &repository.api, &[github_repository::TOKEN, &modules.display().to_string()]);
    assert_eq!(repository.state().effects, ["rerun", "disable", "enable", "dispatch", "issue"]);
}

fn accepts(client: Command, api: &DescribedApi, token: &str) {
    accepts_with(client, api, &[token]);
}

fn accepts_with(mut client: Command, api: &DescribedApi, arguments: &[&str]) {
    let output = client.arg(&api.url).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{:?}", text(&output.stderr), api.violations());
    assert_eq!(text(&output.stdout), "accepted\n");
    assert_eq!(api.violations(), Vec::<String>::new());
}

#[expect(clippy::disallowed_methods, reason = "tests start programs")]
fn python(script: &str) -> Command {
    let mut python = Command::new(program("CLIENT_PYTHON"));
    python.env("PYTHONHOME", program("CLIENT_PYTHON_HOME")).env("PYTHONPATH", program("CLIENT_PYTHON_SITE"));
    python.env("LD_LIBRARY_PATH", program("CLIENT_LIBRARIES")).env("NO_PROXY", "127.0.0.1");
    python.arg(Path::new(SCRIPTS).join(script));
    python
}
