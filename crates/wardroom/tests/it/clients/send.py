"""Sends one of each signal with the OpenTelemetry SDK: `send.py http|grpc ENDPOINT TOKEN`."""

import logging
import sys
import time

from opentelemetry import metrics, trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

kind, endpoint, token = sys.argv[1:4]
if kind == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from grpc import Compression

    common = {"endpoint": endpoint, "insecure": True, "compression": Compression.Gzip}
    paths = {"metrics": {}, "logs": {}, "traces": {}}
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    common = {"compression": Compression.Gzip}
    paths = {name: {"endpoint": f"{endpoint}/v1/{name}"} for name in ("metrics", "logs", "traces")}
common["headers"] = {"authorization": f"Bearer {token}"}

service = f"python-{kind}"
resource = Resource.create({"service.name": service, "service.version": "1.2.3"})
reader = PeriodicExportingMetricReader(OTLPMetricExporter(**common, **paths["metrics"]), export_interval_millis=3_600_000)
view = View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())
meters = MeterProvider([reader], resource=resource, views=[view])
traces = TracerProvider(resource=resource)
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**common, **paths["traces"])))
callee = TracerProvider(resource=Resource.create({"service.name": f"{service}-callee"}))
callee.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**common, **paths["traces"])))
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**common, **paths["logs"])))
logging.getLogger().addHandler(LoggingHandler(logger_provider=logs))

meter = meters.get_meter("test")
orders, depth = meter.create_counter("orders", unit="{order}"), meter.create_gauge("queue.depth")
latency, size = meter.create_histogram("latency", unit="s"), meter.create_histogram("size", unit="By")
for number in range(5):
    with traces.get_tracer("test").start_as_current_span("POST /pay", kind=trace.SpanKind.CLIENT) as span:
        context = trace.set_span_in_context(span)
        with callee.get_tracer("test").start_as_current_span("pay", context=context, kind=trace.SpanKind.SERVER):
            time.sleep(0.01)
        orders.add(1, {"region": "eu"})
        latency.record(0.1 * number)
        size.record(100.0 * number)
        depth.set(number)
        logging.getLogger().error("payment %d failed", number)
for provider in (meters, traces, callee, logs):
    if not provider.force_flush():
        sys.exit("the flush failed")
    provider.shutdown()
