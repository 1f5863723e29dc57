//! The routes of intake, which the crate `sources` has: descriptions without handlers.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::{ContentBuilder, Object, RefOr, Response, ResponseBuilder, ResponsesBuilder, Type};
use utoipa::{IntoResponses, ToSchema};

use crate::problem_responses::ProblemDocument;

/// One sample.
#[derive(Serialize, ToSchema)]
pub(crate) struct MetricRecord {
    /// Time of the sample; the time of arrival by default.
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    /// Name of the metric.
    #[schema(min_length = 1)]
    metric_name: String,
    /// A finite number.
    value: f64,
    /// Labels.
    labels: Option<BTreeMap<String, String>>,
}

/// One log line.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogRecord {
    /// Time of the line; the time of arrival by default.
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    /// Severity, such as `ERROR`.
    level: String,
    /// The line.
    message: String,
    /// Service that wrote it.
    #[schema(min_length = 1)]
    service: String,
    /// Further fields.
    labels: Option<BTreeMap<String, String>>,
}

/// One deployment.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeploymentRecord {
    /// Time of the deployment; the time of arrival by default.
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    /// What was deployed.
    #[schema(min_length = 1)]
    service: String,
    /// The new version.
    version: String,
    /// Such as `success`.
    status: Option<String>,
    /// Anything about it.
    #[schema(value_type = Option<Object>)]
    metadata: Option<BTreeMap<String, Value>>,
}

/// The answer to records that are on disk.
#[derive(Serialize, ToSchema)]
pub(crate) struct IngestAnswer {
    /// Fields that were ignored; absent if there are none.
    warnings: Option<Vec<String>>,
}

/// One record, or several.
#[derive(Serialize, ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
#[serde(untagged)]
pub(crate) enum OneOrMore<T> {
    /// One.
    One(T),
    /// Several.
    Several(Vec<T>),
}

/// The errors of OTLP: the status message of the protocol, or a problem document if the request came no further than
/// the guard.
pub(crate) enum OtlpErrors {}

impl IntoResponses for OtlpErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let error = |description: &str| {
            let content = |kind: Type| ContentBuilder::new().schema(Some(Object::with_type(kind))).build();
            ResponseBuilder::new()
                .description(description)
                .content("application/json", content(Type::Object))
                .content("application/x-protobuf", content(Type::String))
                .content("application/problem+json", content(Type::Object))
                .build()
        };
        ResponsesBuilder::new()
            .response("400", error("The body is malformed, or every record was rejected"))
            .response("413", error("`body_too_large`"))
            .response("415", error("`unsupported_type`: the content type or encoding is not supported"))
            .response("429", error("The sender's limits are exceeded; retry after `Retry-After` seconds"))
            .response("503", error("Nothing was stored; retry after `Retry-After` seconds"))
            .build()
            .into()
    }
}

macro_rules! described {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        #[expect(dead_code, reason = "only its description is used")]
        pub(crate) const fn $name() {}
    };
}

described! {
    /// Prometheus remote_write 1.0 and 2.0, chosen by the content type.
    ///
    /// 2.0 is answered with the written counts as headers.
    #[utoipa::path(
        post, path = "/api/v1/write", operation_id = "remoteWrite", tag = "ingest",
        request_body(content = Vec<u8>, content_type = "application/x-protobuf",
            description = "Compressed with snappy"),
        responses((status = 204, description = "Every sample is on disk"),
            (status = 400, description = "Some samples are invalid; the document has `accepted` and `rejected`",
                body = ProblemDocument, content_type = "application/problem+json"),
            (status = 415, description = "`unsupported_type`", body = ProblemDocument,
                content_type = "application/problem+json")),
        extensions(("x-access" = json!("send"))),
    )]
    remote_write
}
described! {
    /// OTLP metrics.
    #[utoipa::path(
        post, path = "/v1/metrics", operation_id = "exportMetrics", tag = "ingest",
        request_body(description = "`ExportMetricsServiceRequest`; `Content-Encoding` gzip or none",
            content((Object = "application/json"), (Vec<u8> = "application/x-protobuf"))),
        responses((status = 200, description = "On disk; rejected data points are in `partialSuccess`",
            content((Object = "application/json"), (Vec<u8> = "application/x-protobuf"))), OtlpErrors),
        extensions(("x-access" = json!("send"))),
    )]
    otlp_metrics
}
described! {
    /// OTLP logs.
    #[utoipa::path(
        post, path = "/v1/logs", operation_id = "exportLogs", tag = "ingest",
        request_body(description = "`ExportLogsServiceRequest`; `Content-Encoding` gzip or none",
            content((Object = "application/json"), (Vec<u8> = "application/x-protobuf"))),
        responses((status = 200, description = "On disk; rejected records are in `partialSuccess`",
            content((Object = "application/json"), (Vec<u8> = "application/x-protobuf"))), OtlpErrors),
        extensions(("x-access" = json!("send"))),
    )]
    otlp_logs
}
described! {
    /// OTLP traces.
    #[utoipa::path(
        post, path = "/v1/traces", operation_id = "exportTraces", tag = "ingest",
        request_body(description = "`ExportTraceServiceRequest`; `Content-Encoding` gzip or none",
            content((Object = "application/json"), (Vec<u8> = "application/x-protobuf"))),
        responses((status = 200, description = "On disk; rejected spans are in `partialSuccess`",
            content((Object = "application/json"), (Vec<u8> = "application/x-protobuf"))), OtlpErrors),
        extensions(("x-access" = json!("send"))),
    )]
    otlp_traces
}
described! {
    /// OTLP metrics over gRPC.
    #[utoipa::path(
        post, path = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        operation_id = "exportMetricsGrpc", tag = "ingest",
        request_body(content = Vec<u8>, content_type = "application/grpc"),
        responses((status = 200, description = "The outcome is in the trailer `grpc-status`", body = Vec<u8>,
                content_type = "application/grpc"),
            (status = 415, description = "`unsupported_type`", body = ProblemDocument,
                content_type = "application/problem+json")),
        extensions(("x-access" = json!("send"))),
    )]
    grpc_metrics
}
described! {
    /// OTLP logs over gRPC.
    #[utoipa::path(
        post, path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        operation_id = "exportLogsGrpc", tag = "ingest",
        request_body(content = Vec<u8>, content_type = "application/grpc"),
        responses((status = 200, description = "The outcome is in the trailer `grpc-status`", body = Vec<u8>,
                content_type = "application/grpc"),
            (status = 415, description = "`unsupported_type`", body = ProblemDocument,
                content_type = "application/problem+json")),
        extensions(("x-access" = json!("send"))),
    )]
    grpc_logs
}
described! {
    /// OTLP traces over gRPC.
    #[utoipa::path(
        post, path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        operation_id = "exportTracesGrpc", tag = "ingest",
        request_body(content = Vec<u8>, content_type = "application/grpc"),
        responses((status = 200, description = "The outcome is in the trailer `grpc-status`", body = Vec<u8>,
                content_type = "application/grpc"),
            (status = 415, description = "`unsupported_type`", body = ProblemDocument,
                content_type = "application/problem+json")),
        extensions(("x-access" = json!("send"))),
    )]
    grpc_traces
}
described! {
    /// Metrics as JSON: one object or an array.
    #[utoipa::path(
        post, path = "/ingest/metrics", operation_id = "ingestMetrics", tag = "ingest",
        request_body(content = inline(OneOrMore<MetricRecord>), description = "`Content-Encoding` gzip or none"),
        responses((status = 200, description = "Every record is on disk", body = IngestAnswer),
            (status = 400, description = "Some records are invalid; the document has `accepted` and `rejected`",
                body = ProblemDocument, content_type = "application/problem+json"),
            (status = 415, description = "`unsupported_type`", body = ProblemDocument,
                content_type = "application/problem+json")),
        extensions(("x-access" = json!("send"))),
    )]
    json_metrics
}
described! {
    /// Logs as JSON: one object or an array.
    #[utoipa::path(
        post, path = "/ingest/logs", operation_id = "ingestLogs", tag = "ingest",
        request_body(content = inline(OneOrMore<LogRecord>), description = "`Content-Encoding` gzip or none"),
        responses((status = 200, description = "Every record is on disk", body = IngestAnswer),
            (status = 400, description = "Some records are invalid; the document has `accepted` and `rejected`",
                body = ProblemDocument, content_type = "application/problem+json"),
            (status = 415, description = "`unsupported_type`", body = ProblemDocument,
                content_type = "application/problem+json")),
        extensions(("x-access" = json!("send"))),
    )]
    json_logs
}
described! {
    /// Deployments as JSON: one object or an array.
    #[utoipa::path(
        post, path = "/ingest/deployment", operation_id = "ingestDeployments", tag = "ingest",
        request_body(content = inline(OneOrMore<DeploymentRecord>), description = "`Content-Encoding` gzip or none"),
        responses((status = 200, description = "Every record is on disk", body = IngestAnswer),
            (status = 400, description = "Some records are invalid; the document has `accepted` and `rejected`",
                body = ProblemDocument, content_type = "application/problem+json"),
            (status = 415, description = "`unsupported_type`", body = ProblemDocument,
                content_type = "application/problem+json")),
        extensions(("x-access" = json!("send"))),
    )]
    json_deployment
}
