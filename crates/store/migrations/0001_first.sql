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
