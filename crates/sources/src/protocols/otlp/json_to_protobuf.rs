//! Streaming conversion of OTLP/JSON to the equivalent protobuf message.
//!
//! Problem: a tree of JSON values or generated structures needs thirty times the memory of a body like `{},{},…`.
//! Model: each message has a table of its fields; values are written to one buffer within the inflate budget as they
//! are parsed, and the protobuf decoder reads the result. Everything that proto3 JSON allows is read: numbers as text,
//! with an exponent or as 5.0 (`json_numbers.rs`); bytes in both base64 alphabets, padded or not; null for an absent
//! field. OTLP deviates from proto3 JSON: ids are hexadecimal and enums are numbers (names are read, too). Unknown
//! fields are ignored, as the specification requires.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use wardroom_domain::error::Failure;
use wardroom_edge::{InflateBudget, InflateError, InflatedBody};

use super::json_numbers::{decode_base64, decode_id, parse_integer};
use crate::decode::failures::{inflate_failure, malformed};

/// Maximum number of characters of an invalid value that an error quotes.
const MAX_QUOTED_CHARS: usize = 60;

/// The fields of a message: name, number and kind.
pub(super) struct Fields(&'static [(&'static str, u64, Kind)]);

enum Kind {
    Text,
    /// An id of this many bytes, in hexadecimal digits.
    Id(usize),
    Base64,
    Bool,
    /// A varint.
    Varint,
    /// A varint, or the name of an enum value.
    Enum,
    /// A zigzag-encoded signed varint.
    Zigzag,
    Fixed64,
    Double,
    Message(&'static Fields),
}

use Kind::{Base64, Bool, Double, Enum, Fixed64, Id, Message as Nested, Text, Varint, Zigzag};

pub(super) static METRICS: Fields = Fields(&[("resourceMetrics", 1, Nested(&RESOURCE_METRICS))]);
pub(super) static LOGS: Fields = Fields(&[("resourceLogs", 1, Nested(&RESOURCE_LOGS))]);
pub(super) static TRACES: Fields = Fields(&[("resourceSpans", 1, Nested(&RESOURCE_SPANS))]);

static RESOURCE_METRICS: Fields =
    Fields(&[("resource", 1, Nested(&RESOURCE)), ("scopeMetrics", 2, Nested(&SCOPE_METRICS))]);
static RESOURCE_LOGS: Fields = Fields(&[("resource", 1, Nested(&RESOURCE)), ("scopeLogs", 2, Nested(&SCOPE_LOGS))]);
static RESOURCE_SPANS: Fields = Fields(&[("resource", 1, Nested(&RESOURCE)), ("scopeSpans", 2, Nested(&SCOPE_SPANS))]);
static RESOURCE: Fields = Fields(&[("attributes", 1, Nested(&KEY_VALUE))]);
static SCOPE: Fields = Fields(&[("name", 1, Text), ("version", 2, Text), ("attributes", 3, Nested(&KEY_VALUE))]);
static SCOPE_METRICS: Fields =
    Fields(&[("scope", 1, Nested(&SCOPE)), ("metrics", 2, Nested(&METRIC)), ("schemaUrl", 3, Text)]);
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
static NUMBERS: Fields =
    Fields(&[("dataPoints", 1, Nested(&NUMBER_POINT)), ("aggregationTemporality", 2, Enum), ("isMonotonic", 3, Bool)]);
static HISTOGRAM: Fields = Fields(&[("dataPoints", 1, Nested(&HISTOGRAM_POINT)), ("aggregationTemporality", 2, Enum)]);
static EXPONENTIAL_HISTOGRAM: Fields =
    Fields(&[("dataPoints", 1, Nested(&EXPONENTIAL_POINT)), ("aggregationTemporality", 2, Enum)]);
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
    ("spanId", 4, Id(8)),
    ("traceId", 5, Id(16)),
]);

static LOG_RECORD: Fields = Fields(&[
    ("timeUnixNano", 1, Fixed64),
    ("observedTimeUnixNano", 11, Fixed64),
    ("severityNumber", 2, Enum),
    ("severityText", 3, Text),
    ("body", 5, Nested(&ANY_VALUE)),
    ("attributes", 6, Nested(&KEY_VALUE)),
    ("traceId", 9, Id(16)),
    ("spanId", 10, Id(8)),
    ("eventName", 12, Text),
]);
static SPAN: Fields = Fields(&[
    ("traceId", 1, Id(16)),
    ("spanId", 2, Id(8)),
    ("parentSpanId", 4, Id(8)),
    ("name", 5, Text),
    ("kind", 6, Enum),
    ("startTimeUnixNano", 7, Fixed64),
    ("endTimeUnixNano", 8, Fixed64),
    ("attributes", 9, Nested(&KEY_VALUE)),
    ("status", 15, Nested(&STATUS)),
]);
static STATUS: Fields = Fields(&[("message", 2, Text), ("code", 3, Enum)]);

/// Names of severity numbers, from 0 on, without their prefix.
const SEVERITY_NUMBERS: [&str; 25] = [
    "UNSPECIFIED",
    "TRACE",
    "TRACE2",
    "TRACE3",
    "TRACE4",
    "DEBUG",
    "DEBUG2",
    "DEBUG3",
    "DEBUG4",
    "INFO",
    "INFO2",
    "INFO3",
    "INFO4",
    "WARN",
    "WARN2",
    "WARN3",
    "WARN4",
    "ERROR",
    "ERROR2",
    "ERROR3",
    "ERROR4",
    "FATAL",
    "FATAL2",
    "FATAL3",
    "FATAL4",
];

/// Names of the other enum values and their numbers.
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
        match self.kind {
            // As text, because 64-bit numbers such as 1796001273.123456789e9 do not fit into an `f64`.
            Varint | Enum | Zigzag | Fixed64 => self.read_integers(<&RawValue>::deserialize(deserializer)?.get()),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl FieldVisitor<'_> {
    /// Reads an integer, or a list of them, from JSON text.
    fn read_integers<E: Error>(self, json: &str) -> Result<(), E> {
        if json.starts_with('[') {
            return serde_json::Deserializer::from_str(json).deserialize_seq(self).map_err(E::custom);
        }
        self.read_integer(json)
    }

    /// Reads an integer from JSON text. A list is none, so that nested lists do not nest calls.
    fn read_integer<E: Error>(self, json: &str) -> Result<(), E> {
        match json.as_bytes().first() {
            Some(b'n') => Ok(()),
            Some(b'"') => {
                let text: std::borrow::Cow<'_, str> = serde_json::from_str(json).map_err(E::custom)?;
                self.write_integer(&text)
            }
            _ => self.write_integer(json),
        }
    }

    fn write_integer<E: Error>(self, text: &str) -> Result<(), E> {
        let named = Some(text).filter(|_| matches!(self.kind, Enum)).and_then(enum_value);
        let mismatch = || {
            let start: String = text.chars().take(MAX_QUOTED_CHARS).collect();
            self.mismatch::<E>(format!("{start:?} (an integer expected)"))
        };
        let number = named.map(i128::from).or_else(|| parse_integer(text)).ok_or_else(mismatch)?;
        // Unsigned or signed, whatever the field is: as the decoder reads the bits.
        let signed = || i64::try_from(number).ok();
        let bits = u64::try_from(number).ok().or_else(|| signed().map(i64::cast_unsigned)).ok_or_else(mismatch)?;
        match self.kind {
            Fixed64 => self.out.write_fixed64(self.number, bits),
            Zigzag => {
                let number = signed().ok_or_else(mismatch)?;
                self.out.write_number(self.number, ((number << 1) ^ (number >> 63)).cast_unsigned())
            }
            _ => self.out.write_number(self.number, bits),
        }
    }

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
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        match self.kind {
            Double => self.out.write_fixed64(self.number, number.to_bits()),
            _ => Err(self.mismatch(number)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            Text => self.out.write_bytes(self.number, text.as_bytes()),
            Id(size) => {
                let bytes =
                    decode_id(text, *size).ok_or_else(|| self.mismatch(format!("{text:?} (hexadecimal expected)")))?;
                self.out.write_bytes(self.number, &bytes)
            }
            Base64 => {
                let bytes = decode_base64(text).map_err(|error| self.mismatch(error))?;
                self.out.write_bytes(self.number, &bytes)
            }
            Double => {
                // Includes "NaN", "Infinity" and "-Infinity".
                let number: f64 = text.parse().map_err(|_| self.mismatch(format!("{text:?}")))?;
                self.visit_f64(number)
            }
            Varint | Enum | Fixed64 | Zigzag => self.write_integer(text),
            Bool | Nested(_) => Err(self.mismatch(format!("{text:?}"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { name, number, kind, out } = self;
        if matches!(kind, Varint | Enum | Zigzag | Fixed64) {
            while let Some(item) = list.next_element::<&RawValue>()? {
                FieldVisitor { name, number, kind, out: &mut *out }.read_integer(item.get())?;
            }
            return Ok(());
        }
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

/// Returns the number of an enum value with this name.
fn enum_value(name: &str) -> Option<u64> {
    let severity = name
        .strip_prefix("SEVERITY_NUMBER_")
        .and_then(|name| SEVERITY_NUMBERS.iter().position(|known| *known == name).map(|number| number as u64));
    severity.or_else(|| ENUM_VALUES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number))
}
