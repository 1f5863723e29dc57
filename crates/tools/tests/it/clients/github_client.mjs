// Uses GitHub's official client against a server; it sends what the published description says.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, token, modules] = process.argv.slice(2);
const { Octokit } = await import(pathToFileURL(createRequire(modules + "/").resolve("@octokit/rest")).href);
const github = new Octokit({ auth: token, baseUrl: url, log: { debug() {}, info() {}, warn() {}, error() {} } });
const repository = { owner: "octo-org", repo: "octo-repo" };
const workflow = { ...repository, workflow_id: "deploy.yml" };

assert.equal((await github.actions.getWorkflowRun({ ...repository, run_id: 30433642 })).data.run_attempt, 1);
const jobs = await github.actions.listJobsForWorkflowRun({ ...repository, run_id: 30433642, filter: "latest" });
assert.equal(jobs.data.jobs[0].conclusion, "failure");
assert.equal((await github.actions.reRunWorkflowFailedJobs({ ...repository, run_id: 30433642 })).status, 201);
assert.equal((await github.actions.getWorkflow(workflow)).data.state, "active");
assert.equal((await github.actions.disableWorkflow(workflow)).status, 204);
assert.equal((await github.actions.enableWorkflow(workflow)).status, 204);
const inputs = { commit: "a".repeat(40), wardroom_key: "k1" };
assert.equal((await github.actions.createWorkflowDispatch({ ...workflow, ref: "main", inputs })).status, 204);
const runs = await github.actions.listWorkflowRuns({ ...workflow, event: "workflow_dispatch" });
assert.match(runs.data.workflow_runs[0].display_title, /k1/);
assert.equal((await github.issues.create({ ...repository, title: "t", body: "b" })).data.title, "t");
assert.equal((await github.issues.listForRepo({ ...repository, state: "all" })).data.length, 1);
assert.equal((await github.repos.getCommit({ ...repository, ref: "main" })).data.sha, "b".repeat(40));
console.log("accepted");
