//! Attributes: keys with values of any type, converted to text.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::decode::protobuf::{DecodeError, Field, Message};

/// Maximum nesting of lists and maps in a value.
const MAX_VALUE_DEPTH: usize = 16;
/// Maximum number of attributes of a log record or span, and of its resource; further ones are ignored.
const MAX_ATTRIBUTES: usize = 128;
/// Maximum number of attributes that are decoded; every configured limit is below.
const MAX_DECODED_ATTRIBUTES: usize = 2000;
/// Maximum length of an attribute value of a log record or span, in bytes; longer ones are truncated.
const MAX_VALUE_BYTES: usize = 4096;

/// A key and its value as text.
pub(super) type Attribute<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Reads the attributes in the fields of this number.
pub(super) fn read_attributes(message: &[u8], field: u64) -> Result<Vec<Attribute<'_>>, DecodeError> {
    let mut found = Vec::with_capacity(16);
    let mut fields = Message::new(message);
    while let Some((number, value)) = fields.next()? {
        if let (true, Field::Bytes(_, attribute)) = (number == field, value) {
            found.push(read_attribute(attribute)?);
            // Lower limits are applied, and reported to the sender, later.
            if found.len() > MAX_DECODED_ATTRIBUTES {
                break;
            }
        }
    }
    Ok(found)
}

/// Reads the attributes of a log record or span, within the limits on their number and size.
pub(super) fn read_bounded_attributes(message: &[u8], field: u64) -> Result<Vec<Attribute<'_>>, DecodeError> {
    let mut found = read_attributes(message, field)?;
    found.truncate(MAX_ATTRIBUTES);
    for (_, value) in &mut found {
        if value.len() > MAX_VALUE_BYTES {
            *value = Cow::Owned(truncated(value, MAX_VALUE_BYTES));
        }
    }
    Ok(found)
}

/// Returns the longest prefix of at most `max_bytes` that ends at a character boundary.
fn truncated(text: &str, max_bytes: usize) -> String {
    text.char_indices().take_while(|(offset, c)| offset + c.len_utf8() <= max_bytes).map(|(_, c)| c).collect()
}

/// Reads a `KeyValue`.
fn read_attribute(message: &[u8]) -> Result<Attribute<'_>, DecodeError> {
    let (mut key, mut value) = (Cow::Borrowed(""), Cow::Borrowed(""));
    let mut fields = Message::new(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(_, bytes)) => key = String::from_utf8_lossy(bytes),
            (2, Field::Bytes(_, any)) => value = value_text(any)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Reads an `AnyValue` as text: lists and maps as JSON, bytes as base64.
pub(super) fn value_text(any: &[u8]) -> Result<Cow<'_, str>, DecodeError> {
    let mut fields = Message::new(any);
    let mut found = Cow::Borrowed("");
    while let Some((number, field)) = fields.next()? {
        found = match (number, field) {
            (1, Field::Bytes(_, bytes)) => String::from_utf8_lossy(bytes),
            (2, Field::Varint(bit)) => Cow::Borrowed(if bit == 0 { "false" } else { "true" }),
            (3, Field::Varint(number)) => Cow::Owned((number as i64).to_string()),
            (4, Field::Fixed64(bits)) => Cow::Owned(f64::from_bits(bits).to_string()),
            (7, Field::Bytes(_, bytes)) => Cow::Owned(STANDARD.encode(bytes)),
            (5 | 6, Field::Bytes(..)) => Cow::Owned(json_value(any, MAX_VALUE_DEPTH)?.to_string()),
            _ => continue,
        };
    }
    Ok(found)
}

/// Reads an `AnyValue` as JSON; values nested deeper than `depth` become "…".
fn json_value(any: &[u8], depth: usize) -> Result<Value, DecodeError> {
    if depth == 0 {
        return Ok(Value::from("…"));
    }
    let mut fields = Message::new(any);
    let mut found = Value::Null;
    while let Some((number, field)) = fields.next()? {
        found = match (number, field) {
            (2, Field::Varint(bit)) => Value::Bool(bit != 0),
            (3, Field::Varint(number)) => Value::from(number as i64),
            (4, Field::Fixed64(bits)) => Value::from(f64::from_bits(bits)),
            (5, Field::Bytes(_, list)) => read_items(list, |item| json_value(item, depth - 1))?.into(),
            (6, Field::Bytes(_, map)) => {
                Value::Object(read_items(map, |item| read_map_entry(item, depth))?.into_iter().collect())
            }
            (1, Field::Bytes(_, bytes)) => Value::from(String::from_utf8_lossy(bytes)),
            (7, Field::Bytes(_, bytes)) => Value::from(STANDARD.encode(bytes)),
            _ => continue,
        };
    }
    Ok(found)
}

/// Reads the items of an `ArrayValue` or `KeyValueList`, at most [`MAX_ATTRIBUTES`].
fn read_items<T>(list: &[u8], mut read: impl FnMut(&[u8]) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
    let (mut found, mut fields) = (Vec::new(), Message::new(list));
    while let Some((number, field)) = fields.next()? {
        if let (1, Field::Bytes(_, item)) = (number, field) {
            if found.len() >= MAX_ATTRIBUTES {
                break;
            }
            found.push(read(item)?);
        }
    }
    Ok(found)
}

fn read_map_entry(message: &[u8], depth: usize) -> Result<(String, Value), DecodeError> {
    let (mut key, mut value) = (String::new(), Value::Null);
    let mut fields = Message::new(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(_, bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
            (2, Field::Bytes(_, any)) => value = json_value(any, depth - 1)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Returns a trace or span id as hexadecimal text.
pub(super) fn hex_id(id: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    id.iter().take(16).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
