-- silver.metrics for Trino, over tables registered with the Delta Lake connector as lake.silver.samples and
-- lake.silver.series (`CALL lake.system.register_table(...)`). Of samples with the same series and time, only
-- the latest is returned.
CREATE OR REPLACE VIEW lake.silver.metrics AS
SELECT
    samples.tenant,
    samples.day,
    samples.ts AS "timestamp",
    element_at(series.labels, 'validator_id') AS validator_id,
    series.name AS metric_name,
    samples.sample AS value,
    series.labels,
    concat('bus://telemetry/0/', CAST(samples."offset" AS varchar)) AS src_uri,
    series.schema_version,
    samples.series_id,
    samples."offset"
FROM (
    SELECT
        *,
        -- Dividing by an exact power of ten returns the original value bit for bit; multiplying does not.
        coalesce(
            CAST(mantissa AS double) / element_at(
                ARRAY[1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                      1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22],
                CAST(exponent AS integer) + 1),
            value
        ) AS sample,
        max("offset") OVER (PARTITION BY tenant, series_id, ts) AS newest
    FROM lake.silver.samples
) AS samples
JOIN lake.silver.series AS series ON series.tenant = samples.tenant AND series.series_id = samples.series_id
WHERE samples."offset" = samples.newest;

-- silver.deployments: the deployments among the events, reported and inferred. A lake of earlier builds has older ones in
-- a table of this name.
CREATE OR REPLACE VIEW lake.silver.deployments_of_events AS
SELECT
    tenant,
    day,
    ts,
    service,
    coalesce(version, '') AS version,
    coalesce(status, source) AS status,
    attributes AS labels,
    source,
    entity_kind,
    entity_name,
    namespace,
    environment,
    cluster_name,
    "offset",
    received_at
FROM lake.silver.events
WHERE kind = 'deployment';
