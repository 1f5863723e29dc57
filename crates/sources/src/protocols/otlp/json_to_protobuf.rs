//! Streaming conversion of OTLP/JSON to the equivalent protobuf message.
//!
//! Problem: a tree of JSON values or generated structures needs thirty times the memory of a body like `{},{},…`.
//! Model: each message has a table of its fields; values are written to one buffer within the inflate budget as they
//! are parsed, and the protobuf decoder reads the result. OTLP deviates from proto3 JSON: ids are hexadecimal, 64-bit
//! numbers may be strings, names are lowerCamelCase, enums are numbers. Unknown fields are ignored, as the
//! specification requires.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use wardroom_domain::error::Failure;
use wardroom_edge::{InflateBudget, InflateError, InflatedBody};

use crate::decode::failures::{inflate_failure, malformed};

/// The fields of a message: name, number and kind.
pub(super) struct Fields(&'static [(&'static str, u64, Kind)]);

enum Kind {
    Text,
    Hex,
    Base64,
    Bool,
    /// A varint; enum names are accepted.
    Varint,
    /// A zigzag-encoded signed varint.
    Zigzag,
    Fixed64,
    Double,
    Message(&'static Fields),
}

use Kind::{Base64, Bool, Double, Fixed64, Hex, Message as Nested, Text, Varint, Zigzag};

pub(super) static METRICS: Fields = Fields(&[("resourceMetrics", 1, Nested(&RESOURCE_METRICS))]);
pub(super) static LOGS: Fields = Fields(&[("resourceLogs", 1, Nested(&RESOURCE_LOGS))]);
pub(super) static TRACES: Fields = Fields(&[("resourceSpans", 1, Nested(&RESOURCE_SPANS))]);

static RESOURCE_METRICS: Fields =
    Fields(&[("resource", 1, Nested(&RESOURCE)), ("scopeMetrics", 2, Nested(&SCOPE_METRICS))]);
static RESOURCE_LOGS: Fields = Fields(&[("resource", 1, Nested(&RESOURCE)), ("scopeLogs", 2, Nested(&SCOPE_LOGS))]);
static RESOURCE_SPANS: Fields = Fields(&[("resource", 1, Nested(&RESOURCE)), ("scopeSpans", 2, Nested(&SCOPE_SPANS))]);
static RESOURCE: Fields = Fields(&[("attributes", 1, Nested(&KEY_VALUE))]);
static SCOPE_METRICS: Fields = Fields(&[("metrics", 2, Nested(&METRIC))]);
static SCOPE_LOGS: Fields = Fields(&[("logRecords", 2, Nested(&LOG_RECORD))]);
static SCOPE_SPANS: Fields = Fields(&[("spans", 2, Nested(&SPAN))]);

static KEY_VALUE: Fields = Fields(&[("key", 1, Text), ("value", 2, Nested(&ANY_VALUE))]);
static ANY_VALUE: Fields = Fields(&[
    ("stringValue", 1, Text),
    ("boolValue", 2, Bool),
    ("intValue", 3, Varint),
    ("doubleValue", 4, Double),
    ("arrayValue", 5, Nested(&ARRAY_VALUE)),
    ("kvlistValue", 6, Nested(&KEY_VALUE_LIST)),
    ("bytesValue", 7, Base64),
]);
static ARRAY_VALUE: Fields = Fields(&[("values", 1, Nested(&ANY_VALUE))]);
static KEY_VALUE_LIST: Fields = Fields(&[("values", 1, Nested(&KEY_VALUE))]);

static METRIC: Fields = Fields(&[
    ("name", 1, Text),
    ("description", 2, Text),
    ("unit", 3, Text),
    ("gauge", 5, Nested(&NUMBERS)),
    ("sum", 7, Nested(&NUMBERS)),
    ("histogram", 9, Nested(&HISTOGRAM)),
    ("exponentialHistogram", 10, Nested(&EXPONENTIAL_HISTOGRAM)),
    ("summary", 11, Nested(&SUMMARY)),
]);
static NUMBERS: Fields = Fields(&[
    ("dataPoints", 1, Nested(&NUMBER_POINT)),
    ("aggregationTemporality", 2, Varint),
    ("isMonotonic", 3, Bool),
]);
static HISTOGRAM: Fields =
    Fields(&[("dataPoints", 1, Nested(&HISTOGRAM_POINT)), ("aggregationTemporality", 2, Varint)]);
static EXPONENTIAL_HISTOGRAM: Fields =
    Fields(&[("dataPoints", 1, Nested(&EXPONENTIAL_POINT)), ("aggregationTemporality", 2, Varint)]);
static SUMMARY: Fields = Fields(&[("dataPoints", 1, Nested(&SUMMARY_POINT))]);
static NUMBER_POINT: Fields = Fields(&[
    ("attributes", 7, Nested(&KEY_VALUE)),
    ("timeUnixNano", 3, Fixed64),
    ("asDouble", 4, Double),
    ("exemplars", 5, Nested(&EXEMPLAR)),
    ("asInt", 6, Fixed64),
    ("flags", 8, Varint),
]);
static HISTOGRAM_POINT: Fields = Fields(&[
    ("attributes", 9, Nested(&KEY_VALUE)),
    ("timeUnixNano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("bucketCounts", 6, Fixed64),
    ("explicitBounds", 7, Double),
    ("exemplars", 8, Nested(&EXEMPLAR)),
    ("flags", 10, Varint),
]);
static EXPONENTIAL_POINT: Fields = Fields(&[
    ("attributes", 1, Nested(&KEY_VALUE)),
    ("timeUnixNano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("scale", 6, Zigzag),
    ("zeroCount", 7, Fixed64),
    ("positive", 8, Nested(&BUCKETS)),
    ("negative", 9, Nested(&BUCKETS)),
    ("flags", 10, Varint),
    ("exemplars", 11, Nested(&EXEMPLAR)),
    ("zeroThreshold", 14, Double),
]);
static BUCKETS: Fields = Fields(&[("offset", 1, Zigzag), ("bucketCounts", 2, Varint)]);
static SUMMARY_POINT: Fields = Fields(&[
    ("attributes", 7, Nested(&KEY_VALUE)),
    ("timeUnixNano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("quantileValues", 6, Nested(&QUANTILE)),
    ("flags", 8, Varint),
]);
static QUANTILE: Fields = Fields(&[("quantile", 1, Double), ("value", 2, Double)]);
static EXEMPLAR: Fields = Fields(&[
    ("filteredAttributes", 7, Nested(&KEY_VALUE)),
    ("timeUnixNano", 2, Fixed64),
    ("asDouble", 3, Double),
    ("asInt", 6, Fixed64),
    ("spanId", 4, Hex),
    ("traceId", 5, Hex),
]);

static LOG_RECORD: Fields = Fields(&[
    ("timeUnixNano", 1, Fixed64),
    ("observedTimeUnixNano", 11, Fixed64),
    ("severityNumber", 2, Varint),
    ("severityText", 3, Text),
    ("body", 5, Nested(&ANY_VALUE)),
    ("attributes", 6, Nested(&KEY_VALUE)),
    ("traceId", 9, Hex),
    ("spanId", 10, Hex),
]);
static SPAN: Fields = Fields(&[
    ("traceId", 1, Hex),
    ("spanId", 2, Hex),
    ("parentSpanId", 4, Hex),
    ("name", 5, Text),
    ("kind", 6, Varint),
    ("startTimeUnixNano", 7, Fixed64),
    ("endTimeUnixNano", 8, Fixed64),
    ("attributes", 9, Nested(&KEY_VALUE)),
    ("status", 15, Nested(&STATUS)),
]);
static STATUS: Fields = Fields(&[("message", 2, Text), ("code", 3, Varint)]);

/// Enum names and their numbers.
const ENUM_VALUES: [(&str, u64); 12] = [
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
];

/// Converts a request to protobuf.
///
/// # Errors
/// Returns an error if the body is not OTLP/JSON or the inflate budget does not suffice.
pub(super) fn convert(
    plain: InflatedBody,
    root: &'static Fields,
    budget: &InflateBudget,
) -> Result<InflatedBody, Failure> {
    let text = std::str::from_utf8(plain.bytes())
        .map_err(|error| malformed(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut out = ProtobufWriter { plain: budget.growable().map_err(inflate_failure)?, failed: None };
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = MessageVisitor { fields: root, out: &mut out }.deserialize(&mut reader).and_then(|()| reader.end());
    match (read, out.failed) {
        (_, Some(failed)) => Err(inflate_failure(failed)),
        (Err(error), None) => Err(malformed(format!("the body is not OTLP/JSON: {error}"))),
        (Ok(()), None) => Ok(out.plain),
    }
}

/// The output buffer, with the error if it could not grow.
struct ProtobufWriter {
    plain: InflatedBody,
    failed: Option<InflateError>,
}

impl ProtobufWriter {
    fn append<E: Error>(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.plain.append(bytes).map_err(|failed| {
            self.failed = Some(failed);
            E::custom("too large")
        })
    }

    fn write_varint<E: Error>(&mut self, mut number: u64) -> Result<(), E> {
        let (mut bytes, mut len) = ([0; 10], 0);
        loop {
            bytes[len] = (number & 0x7f) as u8 | if number > 0x7f { 0x80 } else { 0 };
            len += 1;
            number >>= 7;
            if number == 0 {
                return self.append(&bytes[..len]);
            }
        }
    }

    fn write_bytes<E: Error>(&mut self, field: u64, bytes: &[u8]) -> Result<(), E> {
        self.write_varint(field << 3 | 2)?;
        self.write_varint(bytes.len() as u64)?;
        self.append(bytes)
    }

    fn write_fixed64<E: Error>(&mut self, field: u64, bits: u64) -> Result<(), E> {
        self.write_varint(field << 3 | 1)?;
        self.append(&bits.to_le_bytes())
    }

    fn write_number<E: Error>(&mut self, field: u64, number: u64) -> Result<(), E> {
        self.write_varint(field << 3)?;
        self.write_varint(number)
    }
}

/// Visits the JSON object of one message.
struct MessageVisitor<'o> {
    fields: &'static Fields,
    out: &'o mut ProtobufWriter,
}

impl<'de> DeserializeSeed<'de> for MessageVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.0.iter().map(|(name, ..)| *name).collect();
        write!(f, "an object with {}", names.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.fields.0.iter().find(|(name, ..)| is_field_name(name, &key)) {
                Some((name, number, kind)) => {
                    map.next_value_seed(FieldVisitor { name, number: *number, kind, out: &mut *self.out })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Returns whether a key is the name of a field, in lowerCamelCase or in snake_case as in the .proto file.
fn is_field_name(name: &str, key: &str) -> bool {
    name == key || (key.contains('_') && name.eq_ignore_ascii_case(&key.replace('_', "")))
}

/// Visits the value of one field.
struct FieldVisitor<'o> {
    name: &'static str,
    number: u64,
    kind: &'static Kind,
    out: &'o mut ProtobufWriter,
}

impl<'de> DeserializeSeed<'de> for FieldVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl FieldVisitor<'_> {
    fn mismatch<E: Error>(&self, what: impl fmt::Display) -> E {
        E::custom(format!("field {}: {what} is not a valid value", self.name))
    }
}

impl<'de> Visitor<'de> for FieldVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of field {}", self.name)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, bit: bool) -> Result<(), E> {
        match self.kind {
            Bool => self.out.write_number(self.number, u64::from(bit)),
            _ => Err(self.mismatch(bit)),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        match self.kind {
            Varint => self.out.write_number(self.number, number),
            Fixed64 => self.out.write_fixed64(self.number, number),
            Double => self.out.write_fixed64(self.number, (number as f64).to_bits()),
            Zigzag => self.visit_i64(i64::try_from(number).map_err(E::custom)?),
            _ => Err(self.mismatch(number)),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        match self.kind {
            Varint => self.out.write_number(self.number, number.cast_unsigned()),
            Fixed64 => self.out.write_fixed64(self.number, number.cast_unsigned()),
            Double => self.out.write_fixed64(self.number, (number as f64).to_bits()),
            Zigzag => self.out.write_number(self.number, ((number << 1) ^ (number >> 63)).cast_unsigned()),
            _ => Err(self.mismatch(number)),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        match self.kind {
            Double => self.out.write_fixed64(self.number, number.to_bits()),
            // Some languages serialise 5 as 5.0.
            Varint | Fixed64 | Zigzag if number.fract() == 0.0 && number.abs() < 9.0e15 => {
                self.visit_i64(number as i64)
            }
            _ => Err(self.mismatch(number)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            Text => self.out.write_bytes(self.number, text.as_bytes()),
            Hex => {
                let bytes =
                    decode_hex(text).ok_or_else(|| self.mismatch(format!("{text:?} (hexadecimal expected)")))?;
                self.out.write_bytes(self.number, &bytes)
            }
            Base64 => {
                let bytes = STANDARD.decode(text).map_err(|error| self.mismatch(error))?;
                self.out.write_bytes(self.number, &bytes)
            }
            Double => {
                // Includes "NaN", "Infinity" and "-Infinity".
                let number: f64 = text.parse().map_err(|_| self.mismatch(format!("{text:?}")))?;
                self.visit_f64(number)
            }
            Varint | Fixed64 | Zigzag => {
                let value = ENUM_VALUES.iter().find(|(value, _)| *value == text).map(|(_, number)| *number);
                if let Some(number) = value.or_else(|| text.parse().ok()) {
                    return self.visit_u64(number);
                }
                let number: i64 = text.parse().map_err(|_| self.mismatch(format!("{text:?}")))?;
                self.visit_i64(number)
            }
            Bool | Nested(_) => Err(self.mismatch(format!("{text:?}"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { name, number, kind, out } = self;
        while list.next_element_seed(FieldVisitor { name, number, kind, out: &mut *out })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Nested(fields) = self.kind else { return Err(self.mismatch("an object")) };
        self.out.write_varint(self.number << 3 | 2)?;
        // Reserves a five-byte varint for the length, which is written when it is known.
        let start = self.out.plain.bytes().len();
        self.out.append(&[0x80, 0x80, 0x80, 0x80, 0x00])?;
        MessageVisitor { fields, out: &mut *self.out }.visit_map(map)?;
        let body = start + 5;
        let length = self.out.plain.bytes().len() - body;
        for (index, byte) in self.out.plain.bytes_mut()[start..body].iter_mut().enumerate() {
            *byte |= (length >> (7 * index)) as u8 & 0x7f;
        }
        Ok(())
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8; 2]| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    pairs.iter().map(pair).collect::<Option<Vec<u8>>>().filter(|_| rest.is_empty())
}
