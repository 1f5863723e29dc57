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
use crate::decode::decoded::MAX_IGNORED_FIELDS;
use crate::decode::failures::{inflate_failure, malformed};

/// Maximum number of characters of an invalid value that an error quotes.
const MAX_QUOTED_CHARS: usize = 60;

/// The fields of a message: name, number and kind.
pub(super) struct Fields(&'static [(&'static str, u64, Kind)]);

impl Fields {
    /// Returns the names of the fields.
    pub(super) fn names(&self) -> String {
        self.0.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
    }
}

enum Kind {
    Text,
    /// An id of this many bytes, in hexadecimal digits.
    Id(usize),
    Base64,
    Bool,
    Int64,
    Uint32,
    Uint64,
    /// A number of 32 bits, or the name of an enum value.
    Enum,
    /// A zigzag-encoded signed varint.
    Sint32,
    Fixed64,
    Sfixed64,
    Double,
    Message(&'static Fields),
}

impl Kind {
    /// The smallest and the largest value; `None` if the field is no integer.
    const fn integer_range(&self) -> Option<(i128, i128)> {
        match self {
            Int64 | Sfixed64 => Some((i64::MIN as i128, i64::MAX as i128)),
            Uint64 | Fixed64 => Some((0, u64::MAX as i128)),
            Uint32 => Some((0, u32::MAX as i128)),
            Sint32 | Enum => Some((i32::MIN as i128, i32::MAX as i128)),
            Text | Id(_) | Base64 | Bool | Double | Nested(_) => None,
        }
    }
}

use Kind::{Base64, Bool, Double, Enum, Fixed64, Id, Int64, Message as Nested, Sfixed64, Sint32, Text, Uint32, Uint64};

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
    ("intValue", 3, Int64),
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
    ("asInt", 6, Sfixed64),
    ("flags", 8, Uint32),
]);
static HISTOGRAM_POINT: Fields = Fields(&[
    ("attributes", 9, Nested(&KEY_VALUE)),
    ("timeUnixNano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("bucketCounts", 6, Fixed64),
    ("explicitBounds", 7, Double),
    ("exemplars", 8, Nested(&EXEMPLAR)),
    ("flags", 10, Uint32),
]);
static EXPONENTIAL_POINT: Fields = Fields(&[
    ("attributes", 1, Nested(&KEY_VALUE)),
    ("timeUnixNano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("scale", 6, Sint32),
    ("zeroCount", 7, Fixed64),
    ("positive", 8, Nested(&BUCKETS)),
    ("negative", 9, Nested(&BUCKETS)),
    ("flags", 10, Uint32),
    ("exemplars", 11, Nested(&EXEMPLAR)),
    ("zeroThreshold", 14, Double),
]);
static BUCKETS: Fields = Fields(&[("offset", 1, Sint32), ("bucketCounts", 2, Uint64)]);
static SUMMARY_POINT: Fields = Fields(&[
    ("attributes", 7, Nested(&KEY_VALUE)),
    ("timeUnixNano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("quantileValues", 6, Nested(&QUANTILE)),
    ("flags", 8, Uint32),
]);
static QUANTILE: Fields = Fields(&[("quantile", 1, Double), ("value", 2, Double)]);
static EXEMPLAR: Fields = Fields(&[
    ("filteredAttributes", 7, Nested(&KEY_VALUE)),
    ("timeUnixNano", 2, Fixed64),
    ("asDouble", 3, Double),
    ("asInt", 6, Sfixed64),
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

/// Converts a request to protobuf. Also returns the names of its fields if it has none that is known, at most
/// [`MAX_IGNORED_FIELDS`].
///
/// # Errors
/// Returns an error if the body is not OTLP/JSON or the inflate budget does not suffice.
pub(super) fn convert(
    plain: InflatedBody,
    root: &'static Fields,
    budget: &InflateBudget,
) -> Result<(InflatedBody, Vec<String>), Failure> {
    let text = std::str::from_utf8(plain.bytes())
        .map_err(|error| malformed(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut out =
        ProtobufWriter { plain: budget.growable().map_err(inflate_failure)?, failed: None, unknown: Some(Vec::new()) };
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = MessageVisitor { fields: root, out: &mut out }.deserialize(&mut reader).and_then(|()| reader.end());
    match (read, out.failed) {
        (_, Some(failed)) => Err(inflate_failure(failed)),
        (Err(error), None) => Err(malformed(format!("the body is not OTLP/JSON: {error}"))),
        (Ok(()), None) => Ok((out.plain, out.unknown.unwrap_or_default())),
    }
}

/// The output buffer, with the error if it could not grow.
struct ProtobufWriter {
    plain: InflatedBody,
    failed: Option<InflateError>,
    /// Unknown fields; `None` from the first known field on.
    unknown: Option<Vec<String>>,
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
        write!(f, "an object with {}", self.fields.names())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.fields.0.iter().find(|(name, ..)| is_field_name(name, &key)) {
                Some((name, number, kind)) => {
                    self.out.unknown = None;
                    map.next_value_seed(FieldVisitor { name, number: *number, kind, out: &mut *self.out })?;
                }
                None => {
                    let unknown = self.out.unknown.as_mut().filter(|unknown| unknown.len() < MAX_IGNORED_FIELDS);
                    unknown.into_iter().for_each(|unknown| unknown.push(key.chars().take(MAX_QUOTED_CHARS).collect()));
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
        if self.kind.integer_range().is_some() {
            // As text, because 64-bit numbers such as 1796001273.123456789e9 do not fit into an `f64`.
            return self.read_integers(<&RawValue>::deserialize(deserializer)?.get());
        }
        deserializer.deserialize_any(self)
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
        let (smallest, largest) = self.kind.integer_range().unwrap_or_default();
        let named = Some(text).filter(|_| matches!(self.kind, Enum)).and_then(enum_value);
        let number = named.map(i128::from).or_else(|| parse_integer(text));
        let Some(number) = number.filter(|number| (smallest..=largest).contains(number)) else {
            let start: String = text.chars().take(MAX_QUOTED_CHARS).collect();
            return Err(self.mismatch(format!("{start:?} (an integer from {smallest} to {largest} expected)")));
        };
        match self.kind {
            // Truncated to the two's complement of 64 bits.
            Fixed64 | Sfixed64 => self.out.write_fixed64(self.number, number as u64),
            Sint32 => self.out.write_number(self.number, ((number << 1) ^ (number >> 127)) as u64),
            _ => self.out.write_number(self.number, number as u64),
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
            Int64 | Uint32 | Uint64 | Enum | Sint32 | Fixed64 | Sfixed64 => self.write_integer(text),
            Bool | Nested(_) => Err(self.mismatch(format!("{text:?}"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { name, number, kind, out } = self;
        if kind.integer_range().is_some() {
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

#[cfg(test)]
mod tests {
    use super::*;

    static KINDS: Fields = Fields(&[
        ("int64", 1, Int64),
        ("uint32", 2, Uint32),
        ("uint64", 3, Uint64),
        ("enum", 4, Enum),
        ("sint32", 5, Sint32),
        ("fixed64", 6, Fixed64),
        ("sfixed64", 7, Sfixed64),
    ]);

    /// Converts an object with one field; returns the protobuf, or the error's text.
    fn convert_field(name: &str, value: &str) -> Result<Vec<u8>, String> {
        let budget = InflateBudget::new(1 << 20, 1 << 20);
        let mut out = ProtobufWriter { plain: budget.growable().unwrap(), failed: None, unknown: None };
        let json = format!("{{{name:?}:{value}}}");
        MessageVisitor { fields: &KINDS, out: &mut out }
            .deserialize(&mut serde_json::Deserializer::from_str(&json))
            .map_err(|error| error.to_string())?;
        Ok(out.plain.bytes().to_vec())
    }

    #[test]
    fn integers_out_of_range_are_refused() {
        let cases: [(&str, &[&str], &[&str]); 7] = [
            (
                "int64",
                &["-9223372036854775808", "9223372036854775807"],
                &["9223372036854775808", "-9223372036854775809"],
            ),
            ("sfixed64", &["-9223372036854775808", "9223372036854775807"], &["18446744073709551615", "1e19"]),
            ("uint64", &["0", "18446744073709551615"], &["-1", "18446744073709551616", "1e40"]),
            ("fixed64", &["0", "18446744073709551615"], &["-1", "18446744073709551616", "-9223372036854775808"]),
            ("uint32", &["0", "4294967295"], &["-1", "4294967296", "1e10"]),
            ("sint32", &["-2147483648", "2147483647"], &["2147483648", "-2147483649", "4294967295"]),
            ("enum", &["-2147483648", "2147483647", "17"], &["2147483648", "-2147483649"]),
        ];
        for (name, taken, refused) in cases {
            for number in taken {
                let plain = convert_field(name, number).unwrap();
                assert_eq!(convert_field(name, &format!("\"{number}\"")), Ok(plain), "{name} {number}");
            }
            for number in refused
                .iter()
                .flat_map(|number| [String::from(*number), format!("\"{number}\""), format!("[{number}]")])
            {
                let error = convert_field(name, &number).unwrap_err();
                assert!(error.contains(&format!("field {name}: ")) && error.contains("an integer from "), "{error}");
            }
        }
    }

    #[test]
    fn integers_are_encoded_by_their_kind() {
        let negative = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        for (name, value, key, encoded) in [
            ("int64", "-1", 0x08, &negative[..]),
            ("enum", "-1", 0x20, &negative[..]),
            ("uint32", "300", 0x10, &[0xac, 0x02]),
            ("sint32", "-2147483648", 0x28, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            ("sint32", "1", 0x28, &[0x02]),
            ("sfixed64", "-1", 0x39, &[0xff; 8]),
            ("fixed64", "1", 0x31, &[1, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let expected: Vec<u8> = std::iter::once(key).chain(encoded.iter().copied()).collect();
            assert_eq!(convert_field(name, value), Ok(expected), "{name} {value}");
        }
    }
}
