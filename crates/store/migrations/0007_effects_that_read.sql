-- Effects of the kind `read`: checks of runbooks. SQLite cannot change a CHECK, so the table is made again.
CREATE TABLE effects_next (
    id          TEXT NOT NULL PRIMARY KEY,
    tenant      TEXT NOT NULL,
    incident    TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('read', 'dry_run', 'authorization', 'execution', 'undo', 'probe',
                    'settle', 'message')),
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
INSERT INTO effects_next (id, tenant, incident, kind, resource, queue, payload, state, lease_owner, lease_until, fencing,
    attempts, not_before, deadline, created_at, finished_at, result)
SELECT id, tenant, incident, kind, resource, queue, payload, state, lease_owner, lease_until, fencing,
    attempts, not_before, deadline, created_at, finished_at, result FROM effects;
DROP TABLE effects;
ALTER TABLE effects_next RENAME TO effects;
CREATE INDEX effects_open ON effects (not_before, id) WHERE state IN ('ready', 'leased');
CREATE INDEX effects_leased ON effects (tenant, resource) WHERE state = 'leased';
CREATE INDEX effects_by_incident ON effects (tenant, incident, created_at);
