"""Looks from outside at the table of samples: DuckDB counts its rows, the log's newest version tells its files."""

import glob
import json
import os
import sys

import duckdb
import duckdb_extension_delta
from deltalake import DeltaTable

place = f"{sys.argv[1]}/silver/samples"
db = duckdb.connect(config={"allow_unsigned_extensions": "true"})
db.execute("PRAGMA disable_progress_bar")
folder = os.path.dirname(duckdb_extension_delta.__file__)
db.execute(f"LOAD '{glob.glob(folder + '/extensions/*/delta.duckdb_extension')[0]}'")
rows = db.execute(f"SELECT count(*) FROM delta_scan('{place}')").fetchone()[0]
files = DeltaTable(place).get_add_actions(flatten=True)
db.register("files", files)
count, size, span = db.execute(
    """
    SELECT count(*), coalesce(sum(size_bytes), 0),
        coalesce(sum(num_records * (epoch_ms("max.ts") - epoch_ms("min.ts"))) / sum(num_records), 0)
    FROM files
    """
).fetchone()
print(json.dumps({"rows": rows, "files": count, "bytes": int(size), "span_h": float(span) / 3_600_000}))
