"""Reads the tables that two writers left with DuckDB, and the files of the Delta log, and prints a summary as JSON."""

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
# Writers may still be running, so everything is read at one version.
commits = sorted(glob.glob(f"{lake}/silver/samples/_delta_log/*.json"))
version = int(os.path.basename(commits[-1]).removesuffix(".json"))
rows, distinct, min_row, max_row, corrupted = db.execute(
    f"""
    SELECT count(*), count(DISTINCT row), min(row), max(row),
        count(*) FILTER (series_id <> row % 5 + 1 OR epoch_ms(ts) <> 1767225600000 + row * 60000)
    FROM (
        SELECT *, coalesce(mantissa / pow(10.0, exponent), value)::BIGINT AS row
        FROM delta_scan('{lake}/silver/samples', version={version})
    )
    """
).fetchone()
series = db.execute(f"SELECT count(*) FROM delta_scan('{lake}/silver/series')").fetchone()[0]
transactions = []
for commit in commits:
    for line in open(commit):
        action = json.loads(line)
        # Merges commit under an application id of their own.
        if action.get("txn", {}).get("appId", "upkeep") != "upkeep":
            transactions.append(action["txn"]["version"])
print(
    json.dumps(
        {
            "rows": rows,
            "distinct": distinct,
            "min_row": min_row,
            "max_row": max_row,
            "corrupted": corrupted,
            "series": series,
            "transactions": transactions,
        }
    )
)
