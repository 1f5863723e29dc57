"""Prints rows (counted by DuckDB) and files (from the newest version of the Delta log) of the samples' table as JSON."""

import glob
import json
import os
import sys

import duckdb
import duckdb_extension_delta
from deltalake import DeltaTable

path = f"{sys.argv[1]}/silver/samples"
db = duckdb.connect(config={"allow_unsigned_extensions": "true"})
db.execute("PRAGMA disable_progress_bar")
folder = os.path.dirname(duckdb_extension_delta.__file__)
db.execute(f"LOAD '{glob.glob(folder + '/extensions/*/delta.duckdb_extension')[0]}'")
rows = db.execute(f"SELECT count(*) FROM delta_scan('{path}')").fetchone()[0]
files = DeltaTable(path).get_add_actions(flatten=True)
db.register("files", files)
# Files that span six hours of each of their series are finished: no merge takes them again.
count, size, span, finished_rows, finished_size = db.execute(
    """
    WITH spans AS (SELECT *, epoch_ms("max.ts") - epoch_ms("min.ts") AS span FROM files)
    SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(sum(num_records * span) / sum(num_records), 0),
        coalesce(sum(num_records) FILTER (span >= 6 * 3_600_000), 0),
        coalesce(sum(size_bytes) FILTER (span >= 6 * 3_600_000), 0)
    FROM spans
    """
).fetchone()
found = {"rows": rows, "files": count, "bytes": int(size), "span_h": float(span) / 3_600_000}
print(json.dumps(found | {"finished_rows": int(finished_rows), "finished_bytes": int(finished_size)}))
