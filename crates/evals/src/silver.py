"""Counts what the tables hold, from outside: DuckDB with its own reader of the log.

For every time of the oracle's series the number of rows and a sum over their values and series; how often each log line and each
deployment is there.
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
counted = {
    name: dict(db.execute(f"SELECT {column}, count(*) FROM {table(name)} GROUP BY 1").fetchall())
    for name, column in [("logs", "message"), ("deployments", "version")]
}
# Every version there is can be read, and none shows less than one before.
versions = []
for name in ["samples", "series", "logs"] if "versions" in sys.argv[2:] else []:
    place = f"{lake}/silver/{name}"
    newest = max(int(os.path.basename(path)[:20]) for path in glob.glob(f"{place}/_delta_log/*.json"))
    counts = [
        db.execute(f"SELECT count(*) FROM delta_scan('{place}', version={version})").fetchone()[0]
        for version in range(newest + 1)
    ]
    assert counts == sorted(counts), f"{name}: a version holds less than one before: {counts}"
    versions.append([name, len(counts)])
print(json.dumps({"requests": requests, "versions": versions, **counted}))
