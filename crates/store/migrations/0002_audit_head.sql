-- The last head of the audit log that the executor has signed, as JSON: if its ledger does not have it, the ledger was
-- cut or is an older copy.
CREATE TABLE audit_head (
    id          BIGINT PRIMARY KEY CHECK (id = 1),
    head        TEXT NOT NULL
);
