-- What the response wants done outside this process. A row is written in the transaction of the change that wants it,
-- leased by a worker, and finished in the transaction of the change that follows from its result.
CREATE TABLE effects (
    id          TEXT NOT NULL PRIMARY KEY,
    tenant      TEXT NOT NULL,
    incident    TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('dry_run', 'authorization', 'execution', 'undo', 'probe', 'settle',
                    'message')),
    -- What it acts on: rows with the same resource are performed one at a time; empty for none.
    resource    TEXT NOT NULL,
    -- The workers that may take it, by their data folder's id; empty for all.
    queue       TEXT NOT NULL,
    payload     TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('ready', 'leased', 'done', 'cancelled')),
    lease_owner TEXT,
    lease_until BIGINT,
    fencing     BIGINT NOT NULL,
    attempts    BIGINT NOT NULL,
    not_before  BIGINT NOT NULL,
    deadline    BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    finished_at BIGINT,
    result      TEXT
);
CREATE INDEX effects_open ON effects (not_before, id) WHERE state IN ('ready', 'leased');
CREATE INDEX effects_leased ON effects (tenant, resource) WHERE state = 'leased';
CREATE INDEX effects_by_incident ON effects (tenant, incident, created_at);

-- Counts the changes of an incident, so that a reader finds what changed without reading every workflow.
ALTER TABLE incidents ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
CREATE INDEX incidents_unsettled ON incidents (updated_at)
    WHERE state NOT IN ('resolved', 'suppressed', 'closed');

-- One row an incident that has ended: what was seen, what was approved, and what came of it; versioned JSON of its owner.
CREATE TABLE finished_incidents (
    tenant      TEXT NOT NULL,
    incident    TEXT NOT NULL,
    finished_at BIGINT NOT NULL,
    body        TEXT NOT NULL,
    PRIMARY KEY (tenant, incident)
);
CREATE INDEX finished_incidents_by_time ON finished_incidents (tenant, finished_at);
