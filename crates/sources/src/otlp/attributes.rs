//! Attributes: pairs of a key and any value, here always text.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::protobuf::{Broken, Field, Message};

/// How deep lists and maps in a value may nest.
const DEPTH: usize = 16;
/// Attributes of a log record or span, and again of its resource, that are understood; further ones stay in
/// the bus.
const MOST: usize = 128;
/// More attributes than anybody may have.
const TOO_MANY: usize = 2000;
/// Longest value that is understood whole, in bytes.
const LONGEST: usize = 4096;

/// A key and its value as text.
pub(super) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Reads the attributes of a message, which stand in fields of this number.
pub(super) fn pairs(message: &[u8], field: u64) -> Result<Vec<Pair<'_>>, Broken> {
    let mut found = Vec::with_capacity(16);
    let mut fields = Message::new(message);
    while let Some((number, value)) = fields.next()? {
        if let (true, Field::Bytes(_, attribute)) = (number == field, value) {
            found.push(pair(attribute)?);
            // Whoever may have fewer is told so later; nobody may have these.
            if found.len() > TOO_MANY {
                break;
            }
        }
    }
    Ok(found)
}

/// As [`pairs`], within the bounds of what one log record or span may carry.
pub(super) fn bounded_pairs(message: &[u8], field: u64) -> Result<Vec<Pair<'_>>, Broken> {
    let mut found = pairs(message, field)?;
    found.truncate(MOST);
    for (_, value) in &mut found {
        if value.len() > LONGEST {
            *value = Cow::Owned(
                value
                    .chars()
                    .scan(0, |size, c| {
                        ({
                            *size += c.len_utf8();
                            *size
                        } <= LONGEST)
                            .then_some(c)
                    })
                    .collect(),
            );
        }
    }
    Ok(found)
}

/// `KeyValue`.
fn pair(message: &[u8]) -> Result<Pair<'_>, Broken> {
    let (mut key, mut value) = (Cow::Borrowed(""), Cow::Borrowed(""));
    let mut fields = Message::new(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(_, bytes)) => key = String::from_utf8_lossy(bytes),
            (2, Field::Bytes(_, any)) => value = text(any)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// `AnyValue` as text: lists and maps as JSON, bytes as base64.
pub(super) fn text(any: &[u8]) -> Result<Cow<'_, str>, Broken> {
    let mut fields = Message::new(any);
    let mut found = Cow::Borrowed("");
    while let Some((number, field)) = fields.next()? {
        found = match (number, field) {
            (1, Field::Bytes(_, bytes)) => String::from_utf8_lossy(bytes),
            (2, Field::Varint(bit)) => Cow::Borrowed(if bit == 0 { "false" } else { "true" }),
            (3, Field::Varint(number)) => Cow::Owned((number as i64).to_string()),
            (4, Field::Fixed64(bits)) => Cow::Owned(f64::from_bits(bits).to_string()),
            (7, Field::Bytes(_, bytes)) => Cow::Owned(STANDARD.encode(bytes)),
            (5 | 6, Field::Bytes(..)) => Cow::Owned(value(any, DEPTH)?.to_string()),
            _ => continue,
        };
    }
    Ok(found)
}

fn value(any: &[u8], depth: usize) -> Result<Value, Broken> {
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
            (5, Field::Bytes(_, list)) => items(list, |item| value(item, depth - 1))?.into(),
            (6, Field::Bytes(_, map)) => Value::Object(items(map, |item| entry(item, depth))?.into_iter().collect()),
            (1, Field::Bytes(_, bytes)) => Value::from(String::from_utf8_lossy(bytes)),
            (7, Field::Bytes(_, bytes)) => Value::from(STANDARD.encode(bytes)),
            _ => continue,
        };
    }
    Ok(found)
}

fn items<T>(list: &[u8], mut read: impl FnMut(&[u8]) -> Result<T, Broken>) -> Result<Vec<T>, Broken> {
    let (mut found, mut fields) = (Vec::new(), Message::new(list));
    while let Some((number, field)) = fields.next()? {
        if let (1, Field::Bytes(_, item)) = (number, field) {
            if found.len() >= MOST {
                break;
            }
            found.push(read(item)?);
        }
    }
    Ok(found)
}

fn entry(message: &[u8], depth: usize) -> Result<(String, Value), Broken> {
    let (mut key, mut held) = (String::new(), Value::Null);
    let mut fields = Message::new(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(_, bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
            (2, Field::Bytes(_, any)) => held = value(any, depth - 1)?,
            _ => {}
        }
    }
    Ok((key, held))
}
