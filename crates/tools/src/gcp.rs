//! `gcp`: Cloud Run traffic, Compute Engine instances and GKE node pools of one project of Google Cloud.
//!
//! Problem: each of these APIs answers with an operation that goes on for minutes, and each has another way to make a
//! request idempotent. Model: Cloud Run keeps the key in an annotation, written together with the traffic under the
//! service's etag; Compute Engine takes the key as `requestId` and lists the operation by it; the size of a node pool
//! says itself whether it is reached. Guarantees: traffic goes only to revisions that exist and are ready; an instance
//! is reset once for a key; what was set off is followed to its end.

mod gcp_operations;
mod gcp_settings;
mod project;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Run, Tool, ToolError, ToolSpec};

use self::gcp_operations::{Action, shares_of, shares_text};
use self::project::{Project, last_key};
use crate::marks::{Mark, Marks};
use crate::rest::{message, poll_interval};
use crate::{Context, Declared, SettingError, ToolKind};

use gcp_settings::GcpSettings;

/// Default maximum duration of an execution: nodes that come or go.
const DEFAULT_DURATION: Duration = Duration::from_secs(1800);

/// The `gcp` tool.
#[derive(Debug)]
pub(crate) struct GcpTool {
    targets: Vec<Declared<GcpSettings>>,
    context: Context,
}

/// How far an operation is.
enum Progress {
    Done(String),
    Running(String),
    Failed(String),
}

impl GcpTool {
    fn open(&self, call: &ToolCall) -> Result<(Project, Action), ToolError> {
        let declared = self.targets.iter().find(|target| target.name() == call.target);
        let declared =
            declared.ok_or_else(|| ToolError::Invalid(format!("target {:?} is not declared", call.target)))?;
        Ok((Project::open(&declared.settings, &self.context)?, Action::of(call)?))
    }

    fn marks(&self) -> Marks {
        self.context.marks(Self::NAME)
    }
}

impl ToolKind for GcpTool {
    const NAME: &'static str = "gcp";
    type Settings = GcpSettings;

    fn check_settings(settings: &GcpSettings) -> Result<(), SettingError> {
        settings.check()
    }

    fn new(targets: Vec<Declared<GcpSettings>>, context: Context) -> Self {
        Self { targets, context }
    }
}

impl Tool for GcpTool {
    fn spec(&self) -> ToolSpec {
        let summary = "Cloud Run, Compute Engine and Kubernetes Engine of a Google Cloud project";
        ToolSpec { timeout: DEFAULT_DURATION, ..ToolSpec::new(Self::NAME, summary, gcp_operations::operations()) }
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        Action::of(call).map(drop)
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let (project, action) = self.open(call)?;
        let Planned { diff, blast_radius, affected, undo } = plan(&project, &action)?;
        let undo = undo.map(|arguments| ToolCall {
            arguments: arguments.as_object().cloned().unwrap_or_default(),
            ..call.clone()
        });
        let risk = gcp_operations::operations().into_iter().find(|operation| operation.name == call.operation);
        Ok(DryRun {
            diff,
            blast_radius,
            affected: Some(affected),
            risk: risk.map_or("high", |operation| operation.risk.as_str()).to_owned(),
            reversible: undo.is_some(),
            precondition: project.state(&action)?,
            undo,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let (project, action) = self.open(call)?;
        let marks = self.marks();
        if let Some(mark) = marks.get(run.key)?
            && found(&project, &action, &mark, run.key)? == Outcome::Applied
        {
            return finish(&project, &action, run, &marks);
        }
        let state = project.state(&action)?;
        if state != run.precondition {
            return Err(ToolError::Stale(format!("{} is at {state}", call.target)));
        }
        marks.set(run.key, &Mark { before: state, after: None })?;
        let answer = project.act(&action, run.key)?;
        match answer.status {
            200..=299 => finish(&project, &action, run, &marks),
            409 | 412 => Err(ToolError::Stale(message(&answer.body).to_owned())),
            status => {
                let detail = format!("Google refuses ({status}): {}", message(&answer.body));
                Ok(Applied::new(Outcome::NotApplied, detail))
            }
        }
    }

    fn probe(&self, call: &ToolCall, _precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let (project, action) = self.open(call)?;
        match self.marks().get(key)? {
            None => Ok(Outcome::NotApplied),
            Some(mark) => found(&project, &action, &mark, key),
        }
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        let (project, action) = self.open(call)?;
        project.state(&action)
    }

    fn read(&self, call: &ToolCall, _timeout: Duration) -> Result<Value, ToolError> {
        let (project, action) = self.open(call)?;
        let Action::ReadService { service } = action else {
            return Err(ToolError::Invalid(format!("{} is not read only", call.operation)));
        };
        let found = project.service(&service)?;
        Ok(json!({ "traffic": shares_of(&found), "traffic_now": found["trafficStatuses"], "uri": found["uri"],
            "latest_ready_revision": found["latestReadyRevision"], "latest_created_revision": found["latestCreatedRevision"],
            "conditions": found["conditions"], "terminal_condition": found["terminalCondition"] }))
    }
}

/// What an action does.
struct Planned {
    diff: String,
    blast_radius: String,
    affected: u64,
    /// Arguments of the same operation that undo it.
    undo: Option<Value>,
}

fn plan(project: &Project, action: &Action) -> Result<Planned, ToolError> {
    match action {
        Action::SetTraffic { service, traffic } => {
            let found = project.service(service)?;
            for share in traffic {
                project.check_revision(service, share)?;
            }
            let now = shares_of(&found);
            if now == *traffic {
                return Err(ToolError::Invalid(format!(
                    "the traffic of {service} is {} already",
                    shares_text(traffic)
                )));
            }
            Ok(Planned {
                diff: format!("traffic of {service} goes from {} to {}", shares_text(&now), shares_text(traffic)),
                blast_radius: format!("all requests to {service}"),
                affected: 1,
                undo: Some(json!({ "service": service, "traffic": now })),
            })
        }
        Action::ResetInstance { instance } => {
            let found = project.instance(instance)?;
            if found["status"] != "RUNNING" {
                let detail = format!("instance {instance} is {}, and only a running one is reset", found["status"]);
                return Err(ToolError::Invalid(detail));
            }
            let machine = found["machineType"].as_str().map(gcp_operations::short_name).unwrap_or_default();
            Ok(Planned {
                diff: format!("instance {instance} ({machine}) is reset; what it has in memory is lost"),
                blast_radius: "1 instance, and what runs on it".to_owned(),
                affected: 1,
                undo: None,
            })
        }
        Action::SetNodes { cluster, node_pool, nodes } => {
            let (pool, sizes) = project.node_pool(cluster, node_pool)?;
            if pool["status"] != "RUNNING" {
                let detail = format!("node pool {node_pool} is {}; another operation runs on it", pool["status"]);
                return Err(ToolError::Invalid(detail));
            }
            if pool["autoscaling"]["enabled"] == true {
                let detail = format!("node pool {node_pool} is scaled automatically; change its limits instead");
                return Err(ToolError::Invalid(detail));
            }
            if sizes.iter().all(|size| size == nodes) {
                return Err(ToolError::Invalid(format!(
                    "node pool {node_pool} has {nodes} nodes in each zone already"
                )));
            }
            let change: u64 = sizes.iter().map(|size| size.abs_diff(*nodes)).sum();
            let before: u64 = sizes.iter().sum();
            let after = nodes * sizes.len() as u64;
            // Zones of different sizes cannot be put back by one size.
            let is_even = sizes.iter().all(|size| Some(size) == sizes.first());
            let undo = sizes.first().filter(|size| is_even && **size > 0);
            let (gone, verb) = if after < before { ("and the pods on those that go", "go") } else { ("", "come") };
            Ok(Planned {
                diff: format!(
                    "node pool {node_pool} of {cluster} goes from {before} to {after} nodes ({sizes:?} in its zones)"
                ),
                blast_radius: format!("{change} nodes {verb} {gone}").trim_end().to_owned(),
                affected: change,
                undo: undo.map(|size| json!({ "cluster": cluster, "node_pool": node_pool, "nodes": size })),
            })
        }
        Action::ReadService { .. } => Err(ToolError::Invalid("service only reads".to_owned())),
    }
}

/// Looks for the effect of an execution that began.
fn found(project: &Project, action: &Action, mark: &Mark, key: &str) -> Result<Outcome, ToolError> {
    let outcome = match action {
        Action::SetTraffic { service, .. } => {
            let service = project.service(service)?;
            if last_key(&service) == key {
                Outcome::Applied
            } else if mark.before.ends_with(&format!(" after={}", last_key(&service))) {
                Outcome::NotApplied
            } else {
                Outcome::Unknown
            }
        }
        Action::ResetInstance { instance } => match project.reset_of_key(instance, key)? {
            Some(_) => Outcome::Applied,
            None => Outcome::NotApplied,
        },
        Action::SetNodes { .. } => match progress(project, action, key)? {
            Progress::Done(_) => Outcome::Applied,
            Progress::Running(_) if project.state(action)? == mark.before => Outcome::NotApplied,
            Progress::Running(_) | Progress::Failed(_) => Outcome::Unknown,
        },
        Action::ReadService { .. } => Outcome::NotApplied,
    };
    Ok(mark.evaluate(outcome))
}

/// Follows what was set off to its end, and notes that it took effect.
fn finish(project: &Project, action: &Action, run: &Run<'_>, marks: &Marks) -> Result<Applied, ToolError> {
    let mark = Mark { before: run.precondition.to_owned(), after: None };
    let applied = follow(project, action, run, &mark)?;
    marks.complete((run.key, mark), applied, || project.state(action))
}

/// Follows what was set off to its end.
fn follow(project: &Project, action: &Action, run: &Run<'_>, mark: &Mark) -> Result<Applied, ToolError> {
    let started = Instant::now();
    let limit = run.timeout.mul_f32(0.9);
    loop {
        match progress(project, action, run.key)? {
            Progress::Done(text) => return Ok(Applied::new(Outcome::Applied, text)),
            Progress::Failed(text) => {
                let outcome = found(project, action, mark, run.key)?;
                return Ok(Applied::new(outcome, text));
            }
            Progress::Running(text) if started.elapsed() > limit => {
                let outcome = found(project, action, mark, run.key)?;
                return Ok(Applied::new(outcome, format!("it goes on: {text}")));
            }
            Progress::Running(text) => (run.progress)(&text),
        }
        std::thread::sleep(poll_interval(run.timeout));
    }
}

fn progress(project: &Project, action: &Action, key: &str) -> Result<Progress, ToolError> {
    match action {
        Action::SetTraffic { service: name, traffic } => {
            let service = project.service(name)?;
            if last_key(&service) != key || shares_of(&service) != *traffic {
                return Ok(Progress::Running(format!("{name} does not show the change yet")));
            }
            let condition = &service["terminalCondition"];
            Ok(match condition["state"].as_str() {
                Some("CONDITION_FAILED") => {
                    let reason = condition["message"].as_str().unwrap_or("no reason is given");
                    Progress::Failed(format!(
                        "the traffic of {name} is changed, but the service is not ready: {reason}"
                    ))
                }
                _ if service["reconciling"] == true => Progress::Running(format!("{name} is being changed")),
                _ => Progress::Done(format!("traffic of {name}: {}", shares_text(traffic))),
            })
        }
        Action::ResetInstance { instance } => {
            let Some(operation) = project.reset_of_key(instance, key)? else {
                return Ok(Progress::Running("the reset is not listed yet".to_owned()));
            };
            if !operation["error"].is_null() {
                return Ok(Progress::Failed(format!("the reset of {instance} failed: {}", operation["error"])));
            }
            Ok(match operation["status"].as_str() {
                Some("DONE") => Progress::Done(format!("instance {instance} is reset")),
                status => Progress::Running(format!("the reset is {}", status.unwrap_or("unknown"))),
            })
        }
        Action::SetNodes { cluster, node_pool, nodes } => {
            let (pool, sizes) = project.node_pool(cluster, node_pool)?;
            if sizes.iter().all(|size| size == nodes) && pool["status"] == "RUNNING" {
                return Ok(Progress::Done(format!("node pool {node_pool} has {nodes} nodes in each zone")));
            }
            if pool["status"] == "ERROR" {
                return Ok(Progress::Failed(format!("node pool {node_pool} is in error")));
            }
            Ok(Progress::Running(format!("node pool {node_pool}: {sizes:?} nodes, {}", pool["status"])))
        }
        Action::ReadService { .. } => Ok(Progress::Done(String::new())),
    }
}
