//! gRPC as far as one unary call needs it: one message in, one message out, a status behind it.
//!
//! A gRPC library hands over the message decompressed and in its own memory, before anybody has asked the
//! inflate budget; here the message goes the way of every other body: as received, within the same limits,
//! and onto the bus as it came. Framing:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Full};
use wardroom_domain::Identity;
use wardroom_edge::{Problem, read_body};

use crate::RequestHead;
use crate::intake::{Gate, accept, header_text, media_type};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// A frame's flag and length.
const PREFIX: usize = 5;

/// One call of a source's `Export`.
pub(crate) async fn receive(gate: Arc<Gate>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !media_type(&parts.headers).starts_with("application/grpc") {
        let detail = "Content-Type must be application/grpc";
        return Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", detail).into_response();
    }
    let mut head = RequestHead {
        content_type: "application/x-protobuf".to_owned(),
        content_encoding: String::new(),
        received_at: (gate.intake.now)(),
    };
    let identity = parts.extensions.get::<Identity>();
    let message = async {
        let (compressed, message) = unframe(&read_body(body, &gate.intake.edge).await?)?;
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
            accept(&gate, identity, &head, std::future::ready(Ok(message))).await
        }
        // Counted as a request all the same.
        Err(problem) => accept(&gate, identity, &head, std::future::ready(Err(problem))).await,
    };
    match outcome {
        Ok(outcome) => {
            let answer = gate.source.answer(&head, &outcome).into_body().collect().await;
            answered(&answer.map(|body| body.to_bytes()).unwrap_or_default())
        }
        Err(problem) => failed(&problem),
    }
}

/// The one message of a unary call, and whether it is compressed.
fn unframe(body: &Bytes) -> Result<(bool, Bytes), Problem> {
    let torn = |detail| Problem::bad_request("malformed", detail);
    let (prefix, rest) = body.split_first_chunk::<PREFIX>().ok_or_else(|| torn("the gRPC frame is cut short"))?;
    let [flag, a, b, c, d] = *prefix;
    if u32::from_be_bytes([a, b, c, d]) as usize != rest.len() {
        return Err(torn("the gRPC body must hold exactly one whole message"));
    }
    Ok((flag & 1 == 1, body.slice(PREFIX..)))
}

fn answered(message: &[u8]) -> Response {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Body::new(body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A refusal: the status in the head, and no message.
fn failed(problem: &Problem) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, HeaderValue::from(u16::from(code_of(problem.status()))));
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
        headers.insert(MESSAGE, text);
    }
    response
}

/// The gRPC code of an HTTP status, chosen by what senders do on it: UNAVAILABLE and DEADLINE_EXCEEDED are
/// sent again, the others are not.
pub(crate) const fn code_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        401 => 16,
        403 => 7,
        404 | 415 => 12,
        408 => 4,
        413 => 8,
        400..=499 => 3,
        _ => 14,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_one_message() {
        let frame = |bytes: &[u8]| unframe(&Bytes::copy_from_slice(bytes)).map_err(|problem| problem.code());
        assert_eq!(frame(&[0, 0, 0, 0, 2, 7, 8]), Ok((false, Bytes::from_static(&[7, 8]))));
        assert_eq!(frame(&[1, 0, 0, 0, 0]), Ok((true, Bytes::new())));
        assert_eq!(frame(&[0, 0, 0, 0]), Err("malformed"));
        assert_eq!(frame(&[0, 0, 0, 0, 3, 7, 8]), Err("malformed"));
        assert_eq!(frame(&[0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0]), Err("malformed"));
    }

    #[test]
    fn refusals_are_told_in_the_head() {
        let response = failed(&Problem::unavailable("overloaded", "50 % zu voll: ü"));
        assert_eq!(response.headers()[STATUS], "14");
        assert_eq!(response.headers()[MESSAGE], "50 %25 zu voll: %C3%BC");
    }
}
