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
