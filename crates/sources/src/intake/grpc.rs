//! Unary gRPC calls: one request message, one response message, and a status.
//!
//! A gRPC library would decompress the message outside the inflate budget. Here the message is processed like every
//! other body: within the same limits, and appended to the bus as received. Framing:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Full};
use wardroom_domain::Identity;
use wardroom_edge::{Problem, read_body};

use crate::grpc_status::grpc_code;
use crate::intake::endpoint::{Endpoint, process, sender};
use crate::intake::headers::{header_text, media_type};
use crate::source::RequestHead;

const STATUS_HEADER: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE_HEADER: HeaderName = HeaderName::from_static("grpc-message");
/// Size of the frame header (compression flag and length), in bytes.
const FRAME_HEADER_BYTES: usize = 5;

/// Handles one call of the `Export` method of a source.
pub(crate) async fn receive(endpoint: Arc<Endpoint>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !media_type(&parts.headers).starts_with("application/grpc") {
        let detail = "Content-Type must be application/grpc";
        return Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", detail).into_response();
    }
    let mut head = RequestHead {
        content_type: "application/x-protobuf".to_owned(),
        content_encoding: String::new(),
        received_at: (endpoint.intake.now)(),
    };
    let identity = parts.extensions.get::<Identity>();
    let message = async {
        let intake = &endpoint.intake;
        let mut message = read_body(&parts, body, &intake.edge, &intake.bodies, sender(identity)?).await?;
        let compressed;
        (compressed, message.bytes) = read_frame(&message.bytes)?;
        let encoding = header_text(&parts.headers, &HeaderName::from_static("grpc-encoding"));
        match (compressed, encoding.as_str()) {
            (false, _) => Ok((String::new(), message)),
            (true, "gzip") => Ok((encoding, message)),
            (true, _) => {
                let detail = "grpc-encoding must be identity or gzip";
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", detail))
            }
        }
    };
    let outcome = match message.await {
        Ok((encoding, message)) => {
            head.content_encoding = encoding;
            process(&endpoint, identity, &head, std::future::ready(Ok(message))).await
        }
        // Counted as a request, too.
        Err(problem) => process(&endpoint, identity, &head, std::future::ready(Err(problem))).await,
    };
    match outcome {
        Ok(outcome) => {
            let message = endpoint.source.success_response(&head, &outcome).into_body().collect().await;
            success_response(&message.map(|body| body.to_bytes()).unwrap_or_default())
        }
        Err(problem) => error_response(&problem),
    }
}

/// Returns the message of a unary call and whether it is compressed.
fn read_frame(body: &Bytes) -> Result<(bool, Bytes), Problem> {
    let malformed = |detail| Problem::bad_request("malformed", detail);
    let (prefix, rest) =
        body.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or_else(|| malformed("the gRPC frame is truncated"))?;
    let [flag, a, b, c, d] = *prefix;
    if u32::from_be_bytes([a, b, c, d]) as usize != rest.len() {
        return Err(malformed("the gRPC body must hold exactly one complete message"));
    }
    Ok((flag & 1 == 1, body.slice(FRAME_HEADER_BYTES..)))
}

fn success_response(message: &[u8]) -> Response {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let trailers = HeaderMap::from_iter([(STATUS_HEADER, HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Body::new(body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Builds a trailers-only response: the status in the headers, no message.
fn error_response(problem: &Problem) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS_HEADER, HeaderValue::from(u16::from(grpc_code(problem.status()))));
    let printable = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'%';
    let mut text = String::new();
    for byte in problem.detail().bytes() {
        if printable(byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    if let Ok(text) = HeaderValue::from_str(&text) {
        headers.insert(MESSAGE_HEADER, text);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_one_message() {
        let frame = |bytes: &[u8]| read_frame(&Bytes::copy_from_slice(bytes)).map_err(|problem| problem.code());
        assert_eq!(frame(&[0, 0, 0, 0, 2, 7, 8]), Ok((false, Bytes::from_static(&[7, 8]))));
        assert_eq!(frame(&[1, 0, 0, 0, 0]), Ok((true, Bytes::new())));
        assert_eq!(frame(&[0, 0, 0, 0]), Err("malformed"));
        assert_eq!(frame(&[0, 0, 0, 0, 3, 7, 8]), Err("malformed"));
        assert_eq!(frame(&[0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0]), Err("malformed"));
    }

    #[test]
    fn errors_are_sent_in_the_headers() {
        let response = error_response(&Problem::unavailable("overloaded", "50 % full: ü"));
        assert_eq!(response.headers()[STATUS_HEADER], "14");
        assert_eq!(response.headers()[MESSAGE_HEADER], "50 %25 full: %C3%BC");
    }
}
