-- silver.metrics for Spark and Databricks: every sample with its value, name and labels, and the columns of the validators'
-- Silver. Replace LAKE by the lake's URL. Of samples with the same series and time, only the latest is returned.
CREATE OR REPLACE TEMPORARY VIEW metrics AS
SELECT
    samples.tenant,
    samples.day,
    samples.ts AS `timestamp`,
    series.labels['validator_id'] AS validator_id,
    series.name AS metric_name,
    samples.sample AS value,
    series.labels,
    concat('bus://telemetry/0/', samples.`offset`) AS src_uri,
    series.schema_version,
    samples.series_id,
    samples.`offset`
FROM (
    SELECT
        *,
        -- Dividing by an exact power of ten returns the original value bit for bit; multiplying does not.
        coalesce(
            CAST(mantissa AS DOUBLE) / element_at(
                array(1e0D, 1e1D, 1e2D, 1e3D, 1e4D, 1e5D, 1e6D, 1e7D, 1e8D, 1e9D, 1e10D, 1e11D, 1e12D, 1e13D, 1e14D, 1e15D,
                      1e16D, 1e17D, 1e18D, 1e19D, 1e20D, 1e21D, 1e22D),
                exponent + 1),
            value
        ) AS sample,
        max(`offset`) OVER (PARTITION BY tenant, series_id, ts) AS newest
    FROM delta.`LAKE/silver/samples`
) AS samples
JOIN delta.`LAKE/silver/series` AS series ON series.tenant = samples.tenant AND series.series_id = samples.series_id
WHERE samples.`offset` = samples.newest;

-- silver.deployments: the deployments among the events, reported and inferred. A lake of earlier builds has older ones in
-- LAKE/silver/deployments.
CREATE OR REPLACE TEMPORARY VIEW deployments AS
SELECT
    * EXCEPT (event_id, kind, version, status, attributes),
    coalesce(version, '') AS version,
    coalesce(status, source) AS status,
    attributes AS labels
FROM delta.`LAKE/silver/events`
WHERE kind = 'deployment';
