//! `kubernetes`: changes of workloads, pods and nodes of one cluster, followed to their end.
//!
//! Problem: a change of a workload is a request of milliseconds whose effect takes minutes, and which the cluster may
//! compute differently than its author thought. Model: a plan is the difference between an object and what the API
//! server itself makes of the patch in a dry run (with defaults, quotas and admission). The precondition is the
//! object's identity, its generation and the last operation of this tool; the patch carries the version that was read,
//! so that a change in between is a conflict, and the idempotency key in an annotation of the same object, so that
//! effect and key are one write. Guarantees: an operation whose key the object has is not done again; rollouts are
//! followed until all pods are new and available, or the cluster gives up; drains stay within disruption budgets.

mod action;
pub(crate) mod cluster;
mod drain;
mod rollout;
mod status;

use std::time::{Duration, Instant};

use serde_json::Value;
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Run, Tool, ToolError, ToolSpec};

use self::action::{Action, Change, Object, fingerprint, last_key, revision, with_key};
use self::cluster::Cluster;
use self::rollout::{Rollout, differences, rollout};
use crate::marks::{Mark, Marks};
use crate::{Context, Declared, SettingError, ToolKind, blocking};

use cluster::KubernetesSettings;

/// Maximum duration of planning and probing.
const READ_DURATION: Duration = Duration::from_secs(30);
/// Default maximum duration of an execution: a rollout of some dozen pods.
const DEFAULT_DURATION: Duration = Duration::from_secs(900);
/// How often a rollout is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Conflicts after which an execution gives up: the object changes faster than it can be changed.
const MAX_CONFLICTS: u32 = 5;
/// Idempotency key in dry runs; the server keeps nothing of them.
const DRY_RUN_KEY: &str = "dry-run";

/// The `kubernetes` tool.
#[derive(Debug)]
pub(crate) struct KubernetesTool {
    targets: Vec<Declared<KubernetesSettings>>,
    context: Context,
}

/// A call with what it needs.
struct Session {
    cluster: Cluster,
    action: Action,
    namespace: String,
    marks: Marks,
}

impl KubernetesTool {
    fn settings(&self, call: &ToolCall) -> Result<&KubernetesSettings, ToolError> {
        let declared = self.targets.iter().find(|target| target.name() == call.target);
        let declared =
            declared.ok_or_else(|| ToolError::Invalid(format!("target {:?} is not declared", call.target)))?;
        Ok(&declared.settings)
    }

    fn run<T: Send>(
        &self,
        call: &ToolCall,
        limit: Duration,
        work: impl AsyncFnOnce(Session) -> Result<T, ToolError> + Send,
    ) -> Result<T, ToolError> {
        let settings = self.settings(call)?;
        let action = Action::of(call, settings)?;
        let marks = self.context.marks(Self::NAME);
        blocking::run_local(limit, &settings.address(), async || {
            let cluster = Cluster::connect(settings, &self.context)?;
            work(Session { cluster, action, namespace: settings.namespace.clone(), marks }).await
        })
    }
}

impl ToolKind for KubernetesTool {
    const NAME: &'static str = "kubernetes";
    type Settings = KubernetesSettings;

    fn check_settings(settings: &KubernetesSettings) -> Result<(), SettingError> {
        settings.check()?;
        settings.token.as_ref().map_or(Ok(()), |token| token.check("token"))
    }

    fn new(targets: Vec<Declared<KubernetesSettings>>, context: Context) -> Self {
        Self { targets, context }
    }
}

impl Tool for KubernetesTool {
    fn spec(&self) -> ToolSpec {
        let spec = ToolSpec::new(Self::NAME, "workloads, pods and nodes of a Kubernetes cluster", action::operations());
        ToolSpec { timeout: DEFAULT_DURATION, ..spec }
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        Action::of(call, self.settings(call)?).map(drop)
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let risk = action::operations().into_iter().find(|operation| operation.name == call.operation);
        let risk = risk.map_or("high", |operation| operation.risk.as_str());
        self.run(call, READ_DURATION, async |session: Session| session.plan(call, risk).await)
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let run = *run;
        self.run(call, run.timeout, async move |session: Session| session.execute(&run).await)
    }

    fn probe(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        self.run(call, READ_DURATION, async |session: Session| session.probe(precondition, key).await)
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        self.run(call, READ_DURATION, async |session: Session| session.state().await)
    }

    fn read(&self, call: &ToolCall, timeout: Duration) -> Result<Value, ToolError> {
        self.run(call, timeout.min(READ_DURATION), async |session: Session| match &session.action.object {
            Object::Workload { path, .. } => status::workload(&session.cluster, &session.namespace, path).await,
            _ => status::pods(&session.cluster, &session.namespace).await,
        })
    }
}

impl Session {
    async fn plan(&self, call: &ToolCall, risk: &str) -> Result<DryRun, ToolError> {
        let object = self.cluster.get(self.action.path()).await?;
        let name = self.action.object_name();
        let undo = self.action.undo(call, &object);
        let mut precondition = fingerprint(&object);
        let (diff, blast_radius, affected) = match &self.action.change {
            Change::DeletePod => {
                let phase = object["status"]["phase"].as_str().unwrap_or("unknown");
                let node = object["spec"]["nodeName"].as_str().unwrap_or("no node");
                (format!("{name} is deleted; it is {phase} on {node}"), "1 pod".to_owned(), 1)
            }
            Change::Drain { delete_local_data } => {
                let pods = drain::evicted(&self.cluster, self.node(), *delete_local_data).await?;
                let held = drain::held_back(&self.cluster, &pods).await?;
                if !held.is_empty() {
                    let detail = format!("disruption budgets allow no eviction now of {}", held.join(", "));
                    return Err(ToolError::Invalid(detail));
                }
                precondition.push_str(&drain::fingerprint(&pods));
                let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
                let diff = format!("{name} takes no new pods, and {} are evicted: {}", pods.len(), names.join(", "));
                (diff, format!("{} pods, within their disruption budgets", pods.len()), pods.len() as u64)
            }
            change => {
                let changed = self.dry_run(&object).await?;
                let pods = pods_of(&changed).max(pods_of(&object));
                let lines = differences(&object, &changed);
                if lines.is_empty() {
                    return Err(ToolError::Invalid(format!(
                        "{name} already is as the call asks for; nothing would change"
                    )));
                }
                match change {
                    Change::Scale { replicas: 0 } => {
                        let detail = format!("{name} would have no pods, which is an outage; scale to 1 at least");
                        return Err(ToolError::Invalid(detail));
                    }
                    Change::Scale { replicas } => {
                        let difference = pods_of(&object).abs_diff(*replicas);
                        (format!("{name}: {}", lines.join("; ")), format!("{difference} pods come or go"), difference)
                    }
                    Change::Unschedulable(_) => {
                        let text = "no running pod; where new pods are placed".to_owned();
                        (format!("{name}: {}", lines.join("; ")), text, 1)
                    }
                    Change::Restart => {
                        let radius = format!("{pods} pods, replaced as the workload's strategy says");
                        (format!("{name}: all pods are replaced by new ones of the same definition"), radius, pods)
                    }
                    _ => {
                        let radius = format!("{pods} pods, replaced as the workload's strategy says");
                        (format!("{name}: {}", lines.join("; ")), radius, pods)
                    }
                }
            }
        };
        Ok(DryRun {
            diff,
            blast_radius,
            affected: Some(affected),
            risk: risk.to_owned(),
            reversible: undo.is_some(),
            precondition,
            undo,
        })
    }

    async fn execute(&self, run: &Run<'_>) -> Result<Applied, ToolError> {
        if self.action.change == Change::DeletePod {
            return self.delete_pod(run).await;
        }
        self.change(run).await?;
        // The answer is not trusted: the object says whether the operation is in it.
        let object = self.cluster.get(self.action.path()).await?;
        if last_key(&object) != run.key {
            let detail = "the API server reported success, but the object does not show the operation";
            return Ok(Applied::new(Outcome::Unknown, detail));
        }
        self.follow(run).await
    }

    /// Makes the change, unless the object shows that it was made.
    async fn change(&self, run: &Run<'_>) -> Result<(), ToolError> {
        let mut conflicts = 0;
        loop {
            let object = self.cluster.get(self.action.path()).await?;
            if last_key(&object) == run.key {
                return Ok(());
            }
            let found = self.state().await?;
            if found != run.precondition {
                return Err(ToolError::Stale(format!("{} is at {found}", self.action.object_name())));
            }
            let patch = with_key(self.patch(&object, run.key).await?, &object, run.key);
            match self.cluster.patch(self.action.path(), &patch, false).await {
                // Most often the status has changed, which is no part of the plan; the next reading says.
                Err(ToolError::Stale(_)) if conflicts < MAX_CONFLICTS => conflicts += 1,
                result => return result.map(drop),
            }
        }
    }

    /// Follows what an operation set off to its end.
    async fn follow(&self, run: &Run<'_>) -> Result<Applied, ToolError> {
        let name = self.action.object_name();
        let started = Instant::now();
        match &self.action.change {
            Change::Drain { delete_local_data } => {
                let is_empty = drain::evict_all(&self.cluster, self.node(), *delete_local_data, run).await?;
                Ok(if is_empty {
                    Applied::new(Outcome::Applied, format!("{name} is drained"))
                } else {
                    let detail = format!("{name} takes no new pods; some pods are left, held back by budgets");
                    Applied::new(Outcome::Unknown, detail)
                })
            }
            Change::Unschedulable(_) => Ok(Applied::new(Outcome::Applied, format!("{name} is changed"))),
            _ => loop {
                let object = self.cluster.get(self.action.path()).await?;
                match rollout(&object) {
                    Rollout::Done => {
                        let seconds = started.elapsed().as_secs();
                        let detail = format!("{name} is rolled out after {seconds} s");
                        return Ok(Applied::new(Outcome::Applied, detail));
                    }
                    Rollout::Stuck(reason) => {
                        let detail = format!("{name} is changed, but its rollout does not go on: {reason}");
                        return Ok(Applied::new(Outcome::Applied, detail));
                    }
                    Rollout::Running(text) if started.elapsed() > run.timeout.mul_f32(0.9) => {
                        let detail = format!("{name} is changed, and its rollout goes on: {text}");
                        return Ok(Applied::new(Outcome::Applied, detail));
                    }
                    Rollout::Running(text) => (run.progress)(&text),
                }
                tokio::time::sleep(POLL_INTERVAL.min(run.timeout / 20)).await;
            },
        }
    }

    /// Deletes a pod. It cannot keep a key beyond its end, so a note of ours does.
    async fn delete_pod(&self, run: &Run<'_>) -> Result<Applied, ToolError> {
        let name = self.action.object_name();
        if self.marks.get(run.key)?.is_none() {
            let found = self.state().await?;
            if found != run.precondition {
                return Err(ToolError::Stale(format!("{name} is at {found}")));
            }
            self.marks.set(run.key, &Mark { before: found, after: None })?;
        }
        let uid = uid_of(run.precondition);
        let started = Instant::now();
        loop {
            let pod = self.cluster.find(self.action.path()).await?.filter(|pod| pod["metadata"]["uid"] == uid);
            let Some(pod) = pod else {
                return Ok(Applied::new(Outcome::Applied, format!("{name} is deleted")));
            };
            if pod["metadata"]["deletionTimestamp"].is_null() {
                self.cluster.delete(self.action.path(), uid).await?;
            } else if started.elapsed() > run.timeout.mul_f32(0.9) {
                return Ok(Applied::new(Outcome::Applied, format!("{name} is being deleted")));
            }
            (run.progress)(&format!("{name} is ending"));
            tokio::time::sleep(POLL_INTERVAL.min(run.timeout / 20)).await;
        }
    }

    async fn probe(&self, precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let object = self.cluster.find(self.action.path()).await?;
        if self.action.change == Change::DeletePod {
            let pod = object.filter(|pod| pod["metadata"]["uid"] == uid_of(precondition));
            let is_deleted = pod.is_none_or(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
            let is_ours = is_deleted && self.marks.get(key)?.is_some();
            return Ok(if is_ours { Outcome::Applied } else { Outcome::NotApplied });
        }
        let Some(object) = object else { return Ok(Outcome::Unknown) };
        if last_key(&object) == key {
            if let Change::Drain { delete_local_data } = &self.action.change {
                // A drain that was interrupted is half done, and a person decides.
                let pods = drain::evicted(&self.cluster, self.node(), *delete_local_data).await?;
                return Ok(if pods.is_empty() { Outcome::Applied } else { Outcome::Unknown });
            }
            return Ok(Outcome::Applied);
        }
        let is_untouched = precondition.contains(&format!(" after={}", last_key(&object)));
        Ok(if is_untouched { Outcome::NotApplied } else { Outcome::Unknown })
    }

    async fn state(&self) -> Result<String, ToolError> {
        let Some(object) = self.cluster.find(self.action.path()).await? else { return Ok("none".to_owned()) };
        let mut state = fingerprint(&object);
        if let Change::Drain { delete_local_data } = &self.action.change {
            let pods = drain::evicted(&self.cluster, self.node(), *delete_local_data).await?;
            state.push_str(&drain::fingerprint(&pods));
        }
        Ok(state)
    }

    /// What the API server makes of the change, without keeping it.
    async fn dry_run(&self, object: &Value) -> Result<Value, ToolError> {
        let patch = self.patch(object, DRY_RUN_KEY).await?;
        self.cluster.patch(self.action.path(), &patch, true).await
    }

    async fn patch(&self, object: &Value, key: &str) -> Result<Vec<Value>, ToolError> {
        let template = match &self.action.change {
            Change::Undo { revision } => Some(self.earlier_template(object, *revision).await?),
            _ => None,
        };
        self.action.patch(object, template.as_ref(), key)
    }

    /// Returns the pod template of an earlier revision, as its replica set keeps it.
    async fn earlier_template(&self, deployment: &Value, wanted: Option<u64>) -> Result<Value, ToolError> {
        let path = format!("/apis/apps/v1/namespaces/{}/replicasets", self.namespace);
        let list = self.cluster.get(&path).await?;
        let current = revision(deployment).unwrap_or_default();
        let uid = &deployment["metadata"]["uid"];
        let is_own = |set: &&Value| {
            set["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["uid"] == *uid)
        };
        let sets = list["items"].as_array().into_iter().flatten().filter(is_own);
        let mut revisions: Vec<(u64, &Value)> = sets.filter_map(|set| Some((revision(set)?, set))).collect();
        revisions.retain(|(number, _)| *number != current);
        revisions.sort_by_key(|(number, _)| *number);
        let found = match wanted {
            Some(wanted) => revisions.iter().find(|(number, _)| *number == wanted),
            None => revisions.iter().rfind(|(number, _)| *number < current),
        };
        let (_, set) = found.ok_or_else(|| {
            let known: Vec<String> = revisions.iter().map(|(number, _)| number.to_string()).collect();
            let name = self.action.object_name();
            ToolError::Invalid(format!("{name} has no such earlier revision; there are {}", known.join(", ")))
        })?;
        let mut template = set["spec"]["template"].clone();
        // The replica set's own label: the deployment's template must not have it.
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        Ok(template)
    }

    fn node(&self) -> &str {
        match &self.action.object {
            Object::Node { name, .. } => name,
            _ => "",
        }
    }
}

/// Number of pods that a workload wants.
fn pods_of(object: &Value) -> u64 {
    let daemons = object["status"]["desiredNumberScheduled"].as_u64();
    object["spec"]["replicas"].as_u64().or(daemons).unwrap_or(1)
}

/// The object's identifier in a precondition.
fn uid_of(precondition: &str) -> &str {
    precondition.strip_prefix("uid=").and_then(|rest| rest.split(' ').next()).unwrap_or_default()
}
