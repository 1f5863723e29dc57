SELECT
    samples.tenant,
    samples.day,
    samples.ts AS "timestamp",
    series.labels['validator_id'] AS validator_id,
    series.name AS metric_name,
    samples.sample AS value,
    series.labels,
    concat('bus://telemetry/0/', samples."offset") AS src_uri,
    series.schema_version,
    samples.series_id,
    samples."offset"
FROM (
    SELECT
        *,
        -- Dividing by an exact power of ten gives the value back bit for bit; multiplying would not.
        coalesce(
            CAST(mantissa AS DOUBLE) / [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14,
                                        1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22][exponent + 1],
            value
        ) AS sample,
        max("offset") OVER (PARTITION BY tenant, series_id, ts) AS newest
    FROM silver.samples
) AS samples
JOIN silver.series AS series ON series.tenant = samples.tenant AND series.series_id = samples.series_id
WHERE samples."offset" = samples.newest
