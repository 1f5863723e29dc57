-- A database as version 0.1 left it (schema 6), with an incident that awaits approval. Never changed: old data folders must open.
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
-- The first schema. Only SQL that PostgreSQL understands too, types aside.
CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    sha256      TEXT NOT NULL UNIQUE,
    tenant      TEXT NOT NULL,
    principal   TEXT NOT NULL,
    role        TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    revoked_at  BIGINT
);

-- One row an incident; `workflow` is the response workflow's own versioned JSON.
CREATE TABLE incidents (
    key         TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    number      BIGINT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('open', 'investigating', 'awaiting_approval', 'mitigating',
                    'verifying', 'mitigated', 'resolved', 'suppressed', 'escalated', 'closed')),
    opened_at   BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    workflow    TEXT NOT NULL,
    PRIMARY KEY (tenant, key),
    UNIQUE (tenant, number)
);

CREATE TABLE history (
    tenant      TEXT NOT NULL,
    incident    TEXT NOT NULL,
    sequence    BIGINT NOT NULL,
    at          BIGINT NOT NULL,
    from_state  TEXT,
    to_state    TEXT NOT NULL,
    note        TEXT NOT NULL,
    PRIMARY KEY (tenant, incident, sequence)
);

CREATE TABLE anomalies (
    id          TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    at          BIGINT NOT NULL,
    service     TEXT NOT NULL,
    body        TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX anomalies_by_time ON anomalies (tenant, at, id);

CREATE TABLE audit (
    sequence    BIGINT PRIMARY KEY,
    body        TEXT NOT NULL,
    hash        TEXT NOT NULL
);
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (1, 'first', TRUE, X'007B8B341744714EE7703748D76571FCD21C6FDBCA719D506ABBFC5691C78133BC57B9B2D6A639C668BF55B0F48866C9', 1000);
-- The last head of the audit log that the executor has signed, as JSON: if its ledger does not have it, the ledger was
-- cut or is an older copy.
CREATE TABLE audit_head (
    id          BIGINT PRIMARY KEY CHECK (id = 1),
    head        TEXT NOT NULL
);
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (2, 'audit head', TRUE, X'8C930623EF834326AF9BCFAB78635F1EEBEE03DBDE8EBAF5D5146DAC18792003153E59F66169AC4318BC9EF7F9A18710', 1000);
-- The id of the data folder that the database belongs to; the folder has it in a file, too.
CREATE TABLE data_folder (
    id          BIGINT PRIMARY KEY CHECK (id = 1),
    folder_id   TEXT NOT NULL
);
INSERT INTO data_folder (id, folder_id) VALUES (1, '0123456789abcdef0123456789abcdef');
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (3, 'data folder', TRUE, X'FD97F05A72BD187AA3416A680CA6D8A2DB17C1A6CCFA24B96556EC58B07EA8854E3218D2D25B893F9122952B0851F40E', 1000);
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
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (4, 'effects', TRUE, X'928FAFFBD26C9C47E63B40ECDB2B9D8654BB8367B97F54500571FD1A5B711E5FE3CB3DD855D806D23E0CB97C377BCF21', 0);
-- People and services that act, and their ids at other systems.
CREATE TABLE principals (
    tenant       TEXT NOT NULL,
    principal    TEXT NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('person', 'service')),
    roles        TEXT NOT NULL,
    slack        TEXT,
    email        TEXT,
    oidc_issuer  TEXT,
    oidc_subject TEXT,
    PRIMARY KEY (tenant, principal)
);
CREATE UNIQUE INDEX principals_by_slack ON principals (tenant, slack) WHERE slack IS NOT NULL;
CREATE UNIQUE INDEX principals_by_email ON principals (tenant, email) WHERE email IS NOT NULL;
CREATE UNIQUE INDEX principals_by_oidc ON principals (oidc_issuer, oidc_subject) WHERE oidc_subject IS NOT NULL;
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (5, 'principals', TRUE, X'028FDCE7843ADE34F63333F4D8C2D0958C3A3F8AD3EB285CDC9822D5F8E8585D7DA02B6D28BBBF5D3D506E32D82D61FE', 0);
-- The level of autonomy that an administrator has accepted for a cause and an action. Whether it is still in force
-- follows from what came of the action since; see `policy::autonomy`.
CREATE TABLE autonomy (
    tenant      TEXT NOT NULL,
    rule        TEXT NOT NULL,
    tool        TEXT NOT NULL,
    operation   TEXT NOT NULL,
    level       TEXT NOT NULL CHECK (level IN ('ask', 'night', 'automatic')),
    principal   TEXT NOT NULL,
    at          BIGINT NOT NULL,
    PRIMARY KEY (tenant, rule, tool, operation)
);
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (6, 'autonomy', TRUE, X'3CF8F911DEF826F26511E68F5098FC88CF8DEB39FF655E83C1ABB399464C87F69844F0C81E5D647AD291FEC460C9E62F', 0);
INSERT INTO incidents VALUES ('k', 'main', 1, 'awaiting_approval', 1000000, 2000000, '{"version":2}', 3);
INSERT INTO history VALUES ('main', 'k', 0, 1000000, NULL, 'open', 'opened');
INSERT INTO tokens VALUES ('t1', 'ab', 'main', 'alice', 'responder', 1000000, NULL, NULL);
INSERT INTO effects VALUES ('main/dry_run:k:1', 'main', 'k', 'dry_run', 'process:web', 'folder', '{"effect":"dry_run","call":{"tool":"process","operation":"restart","target":"web","arguments":{}}}', 'ready', NULL, NULL, 2, 1, 1000000, 9000000000000000000, 1000000, NULL, 'target did not respond');
