-- A database as version 0.1 left it (schema 3), with an incident that awaits approval. Never changed: old data folders must open.
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
INSERT INTO incidents VALUES ('k', 'main', 1, 'awaiting_approval', 1000000, 2000000, '{"version":2}');
INSERT INTO history VALUES ('main', 'k', 0, 1000000, NULL, 'open', 'opened');
INSERT INTO tokens VALUES ('t1', 'ab', 'main', 'alice', 'responder', 1000000, NULL, NULL);
