-- Services with failed or slow requests: share of failed requests and 99th percentile of the duration, from server and
-- consumer spans.
SELECT
    service,
    count(*) AS requests,
    avg(CASE WHEN failed THEN 1.0 ELSE 0.0 END) AS error_rate,
    approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns) / 1e6 AS p99_ms,
    min(ts) AS first,
    max(ts) AS last
FROM spans
WHERE kind IN ('server', 'consumer') AND ts >= $start AND ts < $end AND ($service IS NULL OR service = $service)
GROUP BY service
HAVING avg(CASE WHEN failed THEN 1.0 ELSE 0.0 END) > $error_rate
    OR approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns) / 1e6 > $p99_ms
ORDER BY error_rate DESC, p99_ms DESC, service
LIMIT $limit
