-- Spans of one trace, by start time.
SELECT ts, duration_ns, service, name, kind, failed, span_id, parent_id, labels
FROM spans
WHERE trace_id = $trace
ORDER BY ts, nanos, span_id
LIMIT $limit
