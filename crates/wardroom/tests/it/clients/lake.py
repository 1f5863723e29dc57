"""Reads the lake tables with DuckDB (which has its own reader of the log), the deltalake package and Polars.

Prints one JSON object: the row counts of each reader, for the current and all earlier versions, every sample as DuckDB
returns it (labels, time, bits), and the rows of the other tables.
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
db.execute("PRAGMA disable_progress_bar")
folder = os.path.dirname(duckdb_extension_delta.__file__)
db.execute(f"LOAD '{glob.glob(folder + '/extensions/*/delta.duckdb_extension')[0]}'")
db.execute(open(view).read().replace("LAKE", lake))
rows = db.execute(
    """SELECT tenant, map_entries(labels), epoch_us("timestamp"), value::VARCHAR FROM metrics"""
).fetchall()


def bits(text):
    # The value is passed as text: the conversion of numbers to Python loses the sign of -0.0.
    return struct.pack(">d", float(text)).hex()


samples_of_view = [
    [tenant, sorted([pair["key"], pair["value"]] for pair in labels), micros, bits(value)]
    for tenant, labels, micros, value in rows
]


def events(name, columns):
    location = f"{lake}/silver/{name}"
    row_counts = [
        sum(deltalake.DeltaTable(location).get_add_actions(flatten=True)["num_records"].to_pylist()),
        polars.read_delta(location).height,
    ]
    found = db.execute(f"SELECT {columns} FROM delta_scan('{location}') ORDER BY ALL").fetchall()
    assert row_counts == [len(found)] * 2, f"{name}: {row_counts}, DuckDB {len(found)}"
    return found


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
            "samples": samples_of_view,
            "versions": versions,
            "logs": events(
                "logs",
                """epoch_us(ts), nanos, service, severity, message, template_id, parameters, labels['region'],
                tenant, topic || '/' || partition || '/' || "offset" = replace(src_uri, 'bus://', ''), day = ts::DATE,
                received_at >= ts""",
            ),
            "log_templates": events("log_templates", "service, template_id, template, lines"),
            "spans": events(
                "spans", "epoch_us(ts), nanos, duration_ns, trace_id, span_id, parent_id, service, name, kind, failed"
            ),
            "bronze": db.execute(
                f"""SELECT "offset", protocol, sha256, size_bytes, segment, segment_position, segment_bytes, payload
                FROM delta_scan('{lake}/bronze/telemetry') ORDER BY 1"""
            ).fetchall(),
            "quarantine": events("quarantine", "protocol, reason, first, last, payload"),
            "histograms": events(
                "histograms", "epoch_us(ts), name, count, sum, schema, positive_spans, positive_counts"
            ),
            "exemplars": events("exemplars", "epoch_us(ts), name, exemplar['trace_id'], value"),
            "events": events(
                "events",
                """epoch_us(ts), kind, source, service, version, status, attributes['team'], entity_kind, entity_name,
                namespace""",
            ),
            "deployments": db.execute(
                "SELECT epoch_us(ts), service, version, status, labels['team'] FROM deployments ORDER BY ALL"
            ).fetchall(),
        }
    )
)
