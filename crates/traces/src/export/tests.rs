//! The whole way from a span to a collector, over a real socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use wardroom_domain::Timestamp;

use super::*;
use crate::context::ContinuedTrace;
use crate::current_context::current;
use crate::layer::{STATUS_TARGET, TraceLayer};

const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TIMEOUT: Duration = Duration::from_secs(20);

/// Answers every request with a status; sends the head and the body of each to the receiver.
fn collector(status: &'static str) -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(&stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() <= 2 {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            (&stream).write_all(answer.as_bytes()).unwrap();
            if sender.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (endpoint, received)
}

fn queue(endpoint: &str, sample_ratio: f64) -> SpanQueue {
    let headers = vec![("authorization".to_owned(), "Bearer s3cret".to_owned())];
    let settings = ExportSettings { endpoint: endpoint.to_owned(), headers, service: "wardroom", sample_ratio };
    assert!(!format!("{settings:?}").contains("s3cret"));
    SpanQueue::new(settings)
}

fn subscriber(queue: Option<SpanQueue>) -> impl tracing::Subscriber + Send + Sync {
    let layer = TraceLayer::new(queue, || Timestamp::from_millis(1_700_000_000_000));
    let filter = layer.filter();
    // As in the server: the log has a filter of its own.
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::sink)
        .with_filter(tracing::level_filters::LevelFilter::WARN);
    tracing_subscriber::registry().with(log).with(layer.with_filter(filter))
}

fn spans(body: &Value) -> Vec<Value> {
    body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

#[test]
fn a_request_and_what_it_calls_are_spans_of_the_callers_trace() {
    let (endpoint, received) = collector("200 OK");
    let queue = queue(&endpoint, 0.0);
    // Any caller can send a long path; it is cut.
    let long = format!("/{}", "é".repeat(40_000));
    let mut inner_header = String::new();
    tracing::subscriber::with_default(subscriber(Some(queue.clone())), || {
        let continued = ContinuedTrace::of(Some(HEADER));
        let request = continued.span(|| tracing::info_span!("request", trace_id = "x", path = long.as_str()));
        request.in_scope(|| {
            assert_eq!(current(), Some(continued.context));
            let call = tracing::info_span!("executor", operation = %"authorize");
            call.in_scope(|| inner_header = current().unwrap().header());
            tracing::info!(target: STATUS_TARGET, status = 503_u64);
        });
        // Not sampled: it began here, and the ratio is 0.
        tracing::info_span!("executor").in_scope(|| assert!(!current().unwrap().is_sampled));
        // Below the level, and of another crate.
        tracing::debug_span!("debug").in_scope(|| ());
        tracing::info_span!(target: "h2", "foreign").in_scope(|| assert!(current().is_none()));
    });
    queue.flush(TIMEOUT);
    let (head, body) = received.recv_timeout(TIMEOUT).unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1") && head.contains("Bearer s3cret"), "{head}");
    let traceparent = head.lines().find_map(|line| line.strip_prefix("traceparent: ")).unwrap();
    assert!(!TraceContext::parse(traceparent).unwrap().is_sampled, "exporting would never end: {traceparent}");
    let spans = spans(&body);
    let [call, request] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((&call["name"], &request["name"]), (&"executor".into(), &"request".into()));
    assert_eq!(request["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((&request["parentSpanId"], &call["traceId"]), (&"00f067aa0ba902b7".into(), &request["traceId"]));
    assert_eq!((&call["parentSpanId"], &request["kind"], &call["kind"]), (&request["spanId"], &2.into(), &3.into()));
    let sent = TraceContext::parse(&inner_header).unwrap();
    assert_eq!(call["spanId"], format!("{:016x}", sent.span_id));
    assert_eq!(request["status"]["code"], 2);
    let attributes = request["attributes"].as_array().unwrap();
    let value = |key: &str| attributes.iter().find(|attribute| attribute["key"] == key).map(|it| it["value"].clone());
    assert_eq!(value("url.path").unwrap()["stringValue"], long.chars().take(256).collect::<String>());
    assert_eq!(value("http.response.status_code").unwrap()["intValue"], "503");
    assert!(value("trace_id").is_none());
    assert_eq!(request["startTimeUnixNano"], "1700000000000000000");
}

#[test]
fn a_context_is_there_without_a_collector() {
    tracing::subscriber::with_default(subscriber(None), || {
        assert_eq!(current(), None);
        let continued = ContinuedTrace::of(Some(HEADER));
        let request = continued.span(|| tracing::info_span!("request"));
        request.in_scope(|| assert_eq!(current(), Some(continued.context)));
    });
}

#[test]
fn nothing_waits_for_a_collector_that_takes_nothing_and_what_is_dropped_is_counted() {
    // Accepts no connection: the address is bound and its backlog is never served.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let queue = queue(&format!("http://{}", listener.local_addr().unwrap()), 1.0);
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let spans = QUEUE_LENGTH + BATCH_LENGTH + 100;
    let began = Instant::now();
    metrics::with_local_recorder(&recorder, || {
        tracing::subscriber::with_default(subscriber(Some(queue)), || {
            (0..spans).for_each(|_| tracing::info_span!("request").in_scope(|| ()));
        });
    });
    assert!(began.elapsed() < REQUEST_TIMEOUT / 2, "{:?}", began.elapsed());
    let text = recorder.handle().render();
    let dropped = format!("{}{{reason=\"queue_full\"}} ", names::SPANS_DROPPED_TOTAL);
    let dropped: usize = text.lines().find_map(|line| line.strip_prefix(&dropped)).unwrap().parse().unwrap();
    assert!((100..=100 + BATCH_LENGTH).contains(&dropped), "{text}");
}

#[test]
fn a_batch_that_is_refused_is_dropped_at_once() {
    let (endpoint, received) = collector("400 Bad Request");
    let mut exporter = Exporter::new(queue(&endpoint, 1.0).0.settings.clone());
    let span = || FinishedSpan {
        name: "request",
        context: TraceContext::begin(),
        parent: None,
        started_at: Timestamp::from_millis(0),
        duration: Duration::from_millis(1),
        attributes: Vec::new(),
        status: None,
    };
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || exporter.export(&[span(), span()]));
    assert_eq!(spans(&received.recv_timeout(TIMEOUT).unwrap().1).len(), 2);
    assert!(received.try_recv().is_err(), "repeated");
    let expected = format!("{}{{reason=\"not_taken\"}} 2", names::SPANS_DROPPED_TOTAL);
    assert!(recorder.handle().render().contains(&expected));
    assert!(exporter.is_failing);
}
