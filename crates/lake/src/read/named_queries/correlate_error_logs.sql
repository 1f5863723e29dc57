-- Templates of warnings and errors by service, most frequent first.
SELECT
    service,
    template_id,
    count(*) AS lines,
    CASE max(CASE severity WHEN 'critical' THEN 3 WHEN 'high' THEN 2 ELSE 1 END)
        WHEN 3 THEN 'critical' WHEN 2 THEN 'high' ELSE 'warning' END AS severity,
    min(ts) AS first,
    max(ts) AS last,
    first_value(message ORDER BY ts) AS example
FROM logs
WHERE severity <> 'info' AND ts >= $start AND ts < $end AND ($service IS NULL OR service = $service)
GROUP BY service, template_id
ORDER BY lines DESC, service, template_id
LIMIT $limit
