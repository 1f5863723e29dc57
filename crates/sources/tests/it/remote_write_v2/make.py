"""Generates the fixtures in this folder with Google's protobuf library for Python, so that the decoder is tested
with the output of an independent encoder. Run in a virtual environment with `protobuf` and `python-snappy`:

    python make.py

The message is io.prometheus.write.v2.Request as the remote_write 2.0 specification publishes it.
"""

import pathlib
import struct

import snappy
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

NOW_MS = 1_795_255_200_000
F = descriptor_pb2.FieldDescriptorProto
KINDS = {
    "double": F.TYPE_DOUBLE,
    "int64": F.TYPE_INT64,
    "uint32": F.TYPE_UINT32,
    "uint64": F.TYPE_UINT64,
    "sint32": F.TYPE_SINT32,
    "sint64": F.TYPE_SINT64,
    "string": F.TYPE_STRING,
}
MESSAGES = {
    "Request": [("symbols", 4, "string", True), ("timeseries", 5, "TimeSeries", True)],
    "TimeSeries": [
        ("labels_refs", 1, "uint32", True),
        ("samples", 2, "Sample", True),
        ("histograms", 3, "Histogram", True),
        ("exemplars", 4, "Exemplar", True),
        ("metadata", 5, "Metadata", False),
    ],
    "Exemplar": [("labels_refs", 1, "uint32", True), ("value", 2, "double", False), ("timestamp", 3, "int64", False)],
    "Sample": [("value", 1, "double", False), ("timestamp", 2, "int64", False), ("start_timestamp", 3, "int64", False)],
    "Metadata": [("type", 1, "uint32", False), ("help_ref", 3, "uint32", False), ("unit_ref", 4, "uint32", False)],
    "BucketSpan": [("offset", 1, "sint32", False), ("length", 2, "uint32", False)],
    "Histogram": [
        ("count_int", 1, "uint64", False),
        ("sum", 3, "double", False),
        ("schema", 4, "sint32", False),
        ("zero_threshold", 5, "double", False),
        ("zero_count_int", 6, "uint64", False),
        ("positive_spans", 11, "BucketSpan", True),
        ("positive_deltas", 12, "sint64", True),
        ("timestamp", 15, "int64", False),
    ],
}


def classes():
    file = descriptor_pb2.FileDescriptorProto(name="write.proto", package="io.prometheus.write.v2", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL
            descriptor = message.field.add(name=field, number=number, label=label)
            if kind in KINDS:
                descriptor.type = KINDS[kind]
            else:
                descriptor.type, descriptor.type_name = F.TYPE_MESSAGE, f".io.prometheus.write.v2.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"io.prometheus.write.v2.{name}")) for name in MESSAGES}


MESSAGE_CLASSES = classes()


class Request:
    def __init__(self):
        self.message, self.table = MESSAGE_CLASSES["Request"](symbols=[""]), {"": 0}

    def symbol(self, text):
        if text not in self.table:
            self.table[text] = len(self.message.symbols)
            self.message.symbols.append(text)
        return self.table[text]

    def series(self, pairs, samples=(), metadata=None):
        refs = [self.symbol(text) for pair in pairs for text in pair]
        series = self.message.timeseries.add(labels_refs=refs)
        for value, ago_ms in samples:
            series.samples.add(value=value, timestamp=NOW_MS - ago_ms)
        if metadata:
            kind, help_text, unit = metadata
            series.metadata.type = kind
            series.metadata.help_ref, series.metadata.unit_ref = self.symbol(help_text), self.symbol(unit)
        return series

    def write(self, name):
        plain = self.message.SerializeToString()
        pathlib.Path(__file__).with_name(f"{name}.snappy.pb").write_bytes(snappy.compress(plain))


STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
UP = [("__name__", "up"), ("instance", "a:9100"), ("job", "node")]


def ordinary():
    request = Request()
    request.series(UP, [(1.0, 30_000), (0.0, 15_000), (STALE, 0)], metadata=(2, "whether it is up", ""))
    counter = request.series(
        [("__name__", "http_requests_total"), ("job", "node")], [(42.5, 0)], metadata=(1, "requests served", "requests")
    )
    exemplar = counter.exemplars.add(value=42.0, timestamp=NOW_MS)
    exemplar.labels_refs.extend([request.symbol("trace_id"), request.symbol("abc")])
    native = request.series([("__name__", "latency_seconds"), ("job", "node")], metadata=(3, "how long", "seconds"))
    histogram = native.histograms.add(count_int=3, sum=1.5, schema=3, zero_threshold=1e-128, timestamp=NOW_MS)
    histogram.positive_spans.add(offset=1, length=2)
    histogram.positive_deltas.extend([1, 1])
    request.write("ordinary")


def broken(name, corrupt):
    request = Request()
    request.series(UP, [(1.0, 0)])
    corrupt(request)
    request.series([("__name__", "after"), ("job", "node")], [(2.0, 0)])
    request.write(name)


def bad_ref(request):
    request.series(UP, [(9.0, 0)]).labels_refs[1] = 4_000_000_000


def odd_refs(request):
    request.series(UP, [(9.0, 0)]).labels_refs.append(1)


ordinary()
broken("bad_ref", bad_ref)
broken("odd_refs", odd_refs)
broken("twice", lambda request: request.series([("__name__", "x"), ("a", "1"), ("a", "2")], [(9.0, 0)]))
broken("no_name", lambda request: request.series([("a", "1")], [(9.0, 0)]))
broken("empty_label_name", lambda request: request.series([("__name__", "x"), ("", "1")], [(9.0, 0)]))
broken("too_old", lambda request: request.series([("__name__", "x")], [(9.0, 49 * 3_600_000)]))
