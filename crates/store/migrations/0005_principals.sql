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
