-- Requests with an `Idempotency-Key`: what was answered, so that a repetition changes nothing.
CREATE TABLE requests (
    tenant       TEXT NOT NULL,
    principal    TEXT NOT NULL,
    key          TEXT NOT NULL,
    -- SHA-256 of the request.
    fingerprint  TEXT NOT NULL,
    begun_at     BIGINT NOT NULL,
    -- The process that handles it, until it is answered.
    worker       TEXT NOT NULL,
    status       BIGINT,
    content_type TEXT,
    -- Null for an answer that is not kept.
    body         TEXT,
    PRIMARY KEY (tenant, principal, key)
);
CREATE INDEX requests_by_time ON requests (begun_at);
CREATE INDEX incidents_by_change ON incidents (updated_at);
