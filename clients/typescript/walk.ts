// Works an incident through with the types that openapi-typescript makes of Wardroom's OpenAPI document, and
// openapi-fetch. The plan is approved, and the executor carries it out.
// Arguments: the URL of the server, a token of an approver, the id of an incident whose plan awaits an approval.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };

type Incident = components["schemas"]["IncidentDetail"];
type HistoryEntry = components["schemas"]["HistoryView"];

const [url, token, id] = process.argv.slice(2);
if (url === undefined || token === undefined || id === undefined) throw new Error("usage: walk URL TOKEN INCIDENT");
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
const path = { id };

/** An answer of openapi-fetch. */
type Answer<T, E> = { data?: T; error?: E; response: Response };

function check(holds: boolean, what: string, found: unknown): asserts holds {
  if (!holds) throw new Error(`${what}: ${JSON.stringify(found)}`);
}

/** The data of an answer. */
function dataOf<T, E>(what: string, answer: Answer<T, E>): T {
  if (answer.data === undefined) throw new Error(`${what}: ${answer.response.status} ${JSON.stringify(answer.error)}`);
  return answer.data;
}

/** The problem document of an answer. */
function errorOf<T, E>(what: string, answer: Answer<T, E>, status: number): E {
  check(answer.response.status === status, `${what}: ${answer.response.status}`, answer.data ?? answer.error);
  if (answer.error === undefined) throw new Error(`${what}: no problem document`);
  return answer.error;
}

async function show(): Promise<Incident> {
  return dataOf("show", await client.GET("/api/v1/incidents/{id}", { params: { path } }));
}

/** All entries of the history, page by page. */
async function history(): Promise<HistoryEntry[]> {
  const entries: HistoryEntry[] = [];
  let cursor: string | null = null;
  do {
    const query: { limit: number; cursor?: string } = cursor === null ? { limit: 3 } : { limit: 3, cursor };
    const answer = await client.GET("/api/v1/incidents/{id}/history", { params: { path, query } });
    const page: components["schemas"]["HistoryList"] = dataOf("history", answer);
    entries.push(...page.history);
    cursor = page.next;
  } while (cursor !== null);
  return entries;
}

const me = dataOf("whoami", await client.GET("/api/v1/whoami"));
check(me.may.includes("respond"), "the token may not respond", me);
const listed = await client.GET("/api/v1/incidents", {
  params: { query: { state: "awaiting_approval", limit: 10, sort: "newest" } },
});
check(dataOf("list", listed).incidents.some((row) => row.id === id), "the incident is not listed", listed.data);
const before = await show();
check(before.plan !== null && before.hypotheses.length > 0, "no plan", before);

dataOf("acknowledge", await client.POST("/api/v1/incidents/{id}/acknowledge", { params: { path }, body: {} }));
for (let repetition = 0; repetition < 2; repetition += 1) {
  // The repetition changes nothing.
  const answer = await client.POST("/api/v1/incidents/{id}/comment", {
    params: { path, header: { "Idempotency-Key": "walk-1" } },
    body: { text: "seen from TypeScript" },
  });
  dataOf("comment", answer);
}
const late = await client.POST("/api/v1/incidents/{id}/comment", {
  params: { path, header: { "If-Match": '"0"' } },
  body: { text: "late" },
});
check(errorOf("late comment", late, 412).code === "changed_since", "another problem", late.error);
dataOf("assign", await client.POST("/api/v1/incidents/{id}/assign", { params: { path }, body: { owner: me.principal } }));

const approval = { plan_sha256: before.plan.plan_sha256, reason: "seen from TypeScript" };
dataOf("approve", await client.POST("/api/v1/incidents/{id}/approve", { params: { path }, body: approval }));
let incident = await show();
for (let attempt = 0; incident.execution !== "applied"; attempt += 1) {
  check(attempt < 200, "the plan is not executed", incident);
  await new Promise((resolve) => setTimeout(resolve, 100));
  incident = await show();
}
const again = await client.POST("/api/v1/incidents/{id}/approve", { params: { path }, body: approval });
check(errorOf("second approval", again, 409).code === "already_used", "another problem", again.error);

check(incident.approval?.by === me.principal && incident.owner === me.principal, "another person", incident);
check(incident.comments.map((comment) => comment.text).join() === "seen from TypeScript", "comments", incident.comments);
const entries = await history();
check(entries.some((entry) => entry.kind === "transition" && entry.to === "mitigating"), "no approval", entries);
check(entries.some((entry) => entry.kind === "comment" && entry.by === me.principal), "no comment", entries);
console.log(`walked: ${entries.length} entries of history`);
