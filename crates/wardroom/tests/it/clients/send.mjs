// Sends one of each signal with the OpenTelemetry SDK for JavaScript, as JSON: `send.mjs ENDPOINT TOKEN`.
import { SpanKind } from "@opentelemetry/api";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http";
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { LoggerProvider, BatchLogRecordProcessor } from "@opentelemetry/sdk-logs";
import { MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";

const [endpoint, token] = process.argv.slice(2);
const to = (signal) => ({ url: `${endpoint}/v1/${signal}`, headers: { authorization: `Bearer ${token}` } });
const resource = resourceFromAttributes({ "service.name": "node-json", "service.version": "1.2.3" });
const reader = new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter(to("metrics")), exportIntervalMillis: 3600000 });
const meters = new MeterProvider({ resource, readers: [reader] });
const traces = new BasicTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter(to("traces")))] });
const logs = new LoggerProvider({ resource, processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(to("logs")) })] });

const meter = meters.getMeter("test");
const orders = meter.createCounter("orders", { unit: "{order}" });
const latency = meter.createHistogram("latency", { unit: "s" });
for (let number = 0; number < 5; number++) {
  const span = traces.getTracer("test").startSpan("POST /pay", { kind: SpanKind.SERVER });
  orders.add(1, { region: "eu" });
  latency.record(0.1 * number);
  logs.getLogger("test").emit({ severityNumber: 17, severityText: "ERROR", body: `payment ${number} failed` });
  span.end();
}
await Promise.all([meters.forceFlush(), traces.forceFlush(), logs.forceFlush()]);
await Promise.all([meters.shutdown(), traces.shutdown(), logs.shutdown()]);
