"""Reads the lake's tables with DuckDB and its own Delta reader, and prints a summary as JSON.

For each timestamp of the oracle's series: the number of rows and a checksum over their values and series. For each log
message and each deployed version: the number of rows.
"""

import glob
import json
import os
import sys

import duckdb
import duckdb_extension_delta

lake = sys.argv[1]
db = duckdb.connect(config={"allow_unsigned_extensions": "true"})
db.execute("PRAGMA disable_progress_bar")
folder = os.path.dirname(duckdb_extension_delta.__file__)
db.execute(f"LOAD '{glob.glob(folder + '/extensions/*/delta.duckdb_extension')[0]}'")


def table(name):
    return f"delta_scan('{lake}/silver/{name}')"


requests = db.execute(
    f"""
    WITH named AS (
        SELECT tenant, series_id, labels['i']::HUGEINT + 1 AS i FROM {table("series")} WHERE name = 'oracle'
    )
    SELECT epoch_ms(ts), count(*),
        sum((coalesce(mantissa / pow(10.0, exponent), value)::HUGEINT % 1000000007) * i)::VARCHAR
    FROM {table("samples")} JOIN named USING (tenant, series_id) GROUP BY 1
    """
).fetchall()
# What detection infers beside what was sent is not the oracle's.
reported = f"(SELECT * FROM {table('events')} WHERE kind = 'deployment' AND source = 'ingest')"
event_counts = {
    name: dict(db.execute(f"SELECT {column}, count(*) FROM {rows} GROUP BY 1").fetchall())
    for name, column, rows in [("logs", "message", table("logs")), ("deployments", "version", reported)]
}
# Every table version is readable, and none holds fewer rows than the one before.
versions = []
for name in ["samples", "series", "logs"] if "versions" in sys.argv[2:] else []:
    path = f"{lake}/silver/{name}"
    newest = max(int(os.path.basename(file)[:20]) for file in glob.glob(f"{path}/_delta_log/*.json"))
    counts = [
        db.execute(f"SELECT count(*) FROM delta_scan('{path}', version={version})").fetchone()[0]
        for version in range(newest + 1)
    ]
    assert counts == sorted(counts), f"{name}: a version holds fewer rows than the one before: {counts}"
    versions.append([name, len(counts)])
print(json.dumps({"requests": requests, "versions": versions, **event_counts}))
