-- silver.metrics for DuckDB: every sample with its value, name and labels, and the columns of the validators' Silver.
-- Replace LAKE by the lake's folder or URL. Of samples with the same series and time, only the latest is returned.
CREATE OR REPLACE VIEW metrics AS
WITH samples AS (
    SELECT
        *,
        -- Dividing by an exact power of ten returns the original value bit for bit; multiplying does not.
        coalesce(
            mantissa / list_extract([1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                     1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22], exponent + 1),
            value
        ) AS sample
    FROM delta_scan('LAKE/silver/samples')
)
SELECT
    samples.tenant,
    samples.day,
    samples.ts AS "timestamp",
    series.labels['validator_id'] AS validator_id,
    series.name AS metric_name,
    samples.sample AS value,
    series.labels,
    'bus://telemetry/0/' || samples."offset" AS src_uri,
    series.schema_version,
    samples.series_id,
    samples."offset"
FROM samples
JOIN delta_scan('LAKE/silver/series') AS series USING (tenant, series_id)
-- Not row_number() = 1: DuckDB turns that into an aggregate that loses the sign of -0.0.
QUALIFY samples."offset" = max(samples."offset") OVER (PARTITION BY samples.tenant, samples.series_id, samples.ts);

-- silver.deployments for DuckDB: the deployments among the events, reported and inferred. A lake of earlier builds has
-- older ones in LAKE/silver/deployments, with the same columns: add them with UNION ALL BY NAME.
CREATE OR REPLACE VIEW deployments AS
SELECT
    * EXCLUDE (event_id, kind, version, status, attributes),
    coalesce(version, '') AS version,
    coalesce(status, source) AS status,
    attributes AS labels
FROM delta_scan('LAKE/silver/events')
WHERE kind = 'deployment';
