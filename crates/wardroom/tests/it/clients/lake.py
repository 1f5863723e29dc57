"""Reads a lake from outside: DuckDB (its own reader of the log), the deltalake package and Polars.

Prints one JSON object: what each of them counted, every sample of the view as DuckDB shows it (labels, time, bits), and how
many rows the first version with rows holds.
"""

import glob
import json
import os
import struct
import sys

import deltalake
import duckdb
import duckdb_extension_delta
import polars

lake, view = sys.argv[1:3]
samples, series = f"{lake}/silver/samples", f"{lake}/silver/series"

db = duckdb.connect(config={"allow_unsigned_extensions": "true"})
folder = os.path.dirname(duckdb_extension_delta.__file__)
db.execute(f"LOAD '{glob.glob(folder + '/extensions/*/delta.duckdb_extension')[0]}'")
db.execute(open(view).read().replace("LAKE", lake))
rows = db.execute(
    """SELECT tenant, map_entries(labels), epoch_us("timestamp"), value::VARCHAR FROM metrics"""
).fetchall()


def bits(text):
    # As text: on their way into Python, numbers lose the sign of minus zero.
    return struct.pack(">d", float(text)).hex()


shown = [
    [tenant, sorted([pair["key"], pair["value"]] for pair in labels), micros, bits(value)]
    for tenant, labels, micros, value in rows
]
table = deltalake.DeltaTable(samples)
versions = {}
for version in range(table.version() + 1):
    versions[version] = [
        sum(deltalake.DeltaTable(samples, version=version).get_add_actions(flatten=True)["num_records"].to_pylist()),
        polars.read_delta(samples, version=version).height,
        db.execute(f"SELECT count(*) FROM delta_scan('{samples}', version={version})").fetchone()[0],
    ]
print(
    json.dumps(
        {
            "duckdb": db.execute(f"SELECT count(*) FROM delta_scan('{samples}')").fetchone()[0],
            "polars": polars.read_delta(samples).height,
            "deltalake": sum(table.get_add_actions(flatten=True)["num_records"].to_pylist()),
            "series": db.execute(f"SELECT count(*) FROM delta_scan('{series}')").fetchone()[0],
            "shown": shown,
            "versions": versions,
        }
    )
)
