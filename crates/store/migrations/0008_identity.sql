-- People who log in at this server, without a provider; `principals` has what other systems call them.
CREATE TABLE users (
    tenant      TEXT NOT NULL,
    principal   TEXT NOT NULL,
    role        TEXT NOT NULL,
    -- argon2id in PHC's form; none if they have passkeys only.
    password    TEXT,
    created_at  BIGINT NOT NULL,
    disabled_at BIGINT,
    PRIMARY KEY (tenant, principal)
);

-- Sessions of browsers. Only hashes of their secrets.
CREATE TABLE sessions (
    id             TEXT NOT NULL PRIMARY KEY,
    sha256         TEXT NOT NULL UNIQUE,
    -- The secret before the last rotation, and until when it counts.
    previous_sha256 TEXT,
    previous_until BIGINT,
    csrf_token     TEXT NOT NULL,
    tenant         TEXT NOT NULL,
    principal      TEXT NOT NULL,
    method         TEXT NOT NULL CHECK (method IN ('password', 'passkey', 'oidc', 'token')),
    -- What a provider's groups permitted at the login; empty for the other methods, whose user or token decides.
    scopes         TEXT NOT NULL,
    -- The token or the passkey by which the person has logged in.
    credential     TEXT,
    created_at     BIGINT NOT NULL,
    rotated_at     BIGINT NOT NULL,
    used_at        BIGINT NOT NULL,
    ends_at        BIGINT NOT NULL,
    revoked_at     BIGINT
);
CREATE INDEX sessions_by_principal ON sessions (tenant, principal);
CREATE INDEX sessions_in_force ON sessions (ends_at) WHERE revoked_at IS NULL;

-- Passkeys of users, for logins. Those that approve are in the executor's file.
CREATE TABLE passkeys (
    id          TEXT NOT NULL PRIMARY KEY,
    tenant      TEXT NOT NULL,
    principal   TEXT NOT NULL,
    public_key  TEXT NOT NULL,
    name        TEXT NOT NULL,
    sign_count  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    used_at     BIGINT
);
CREATE INDEX passkeys_by_principal ON passkeys (tenant, principal);
