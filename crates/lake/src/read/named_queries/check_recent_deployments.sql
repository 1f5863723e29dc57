-- Deployments, newest first.
SELECT ts, service, version, status, labels
FROM deployments
WHERE ts >= $start AND ts < $end AND ($service IS NULL OR service = $service)
ORDER BY ts DESC, service
LIMIT $limit
