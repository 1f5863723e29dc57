//! `Histogram`, the same in both versions: native histograms, their bucket counts told as distances
//! (integers) or as they are (floats).

use wardroom_domain::{Buckets, NativeHistogram};

use crate::protobuf::{Broken, Field, Message, unzigzag};

/// Buckets that one request may hold.
const MAX_BUCKETS: usize = 2_000_000;

/// Reads one; `held` counts the buckets of the whole request.
pub(super) fn read_histogram(bytes: &[u8], held: &mut usize) -> Result<NativeHistogram, Broken> {
    let mut histogram = NativeHistogram::default();
    let (mut below, mut above) = (0_i64, 0_i64);
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Varint(count)) => histogram.count = count as f64,
            (2, Field::Fixed64(bits)) => histogram.count = f64::from_bits(bits),
            (3, Field::Fixed64(bits)) => histogram.sum = f64::from_bits(bits),
            (4, Field::Varint(schema)) => histogram.schema = unzigzag(schema) as i32,
            (5, Field::Fixed64(bits)) => histogram.zero_threshold = f64::from_bits(bits),
            (6, Field::Varint(count)) => histogram.zero_count = count as f64,
            (7, Field::Fixed64(bits)) => histogram.zero_count = f64::from_bits(bits),
            (8, Field::Bytes(_, span)) => put(&mut histogram.negative.spans, read_span(span)?, held)?,
            (9, field) => deltas(field, &mut below, &mut histogram.negative, held)?,
            (10, field) => doubles(field, &mut histogram.negative.counts, held)?,
            (11, Field::Bytes(_, span)) => put(&mut histogram.positive.spans, read_span(span)?, held)?,
            (12, field) => deltas(field, &mut above, &mut histogram.positive, held)?,
            (13, field) => doubles(field, &mut histogram.positive.counts, held)?,
            (14, Field::Varint(hint)) => histogram.reset_hint = u8::try_from(hint).unwrap_or_default(),
            (15, Field::Varint(ts_ms)) => histogram.ts_ms = ts_ms as i64,
            (16, field) => doubles(field, &mut histogram.bounds, held)?,
            _ => {}
        }
    }
    Ok(histogram)
}

fn read_span(bytes: &[u8]) -> Result<(i32, u32), Broken> {
    let (mut offset, mut length) = (0, 0);
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Varint(value)) => offset = unzigzag(value) as i32,
            (2, Field::Varint(value)) => length = u32::try_from(value).unwrap_or(u32::MAX),
            _ => {}
        }
    }
    Ok((offset, length))
}

fn deltas(field: Field<'_>, last: &mut i64, buckets: &mut Buckets, held: &mut usize) -> Result<(), Broken> {
    field.each_varint(|delta| {
        *last = last.wrapping_add(unzigzag(delta));
        put(&mut buckets.counts, *last as f64, held)
    })
}

fn doubles(field: Field<'_>, list: &mut Vec<f64>, held: &mut usize) -> Result<(), Broken> {
    field.each_fixed64(|bits| put(list, f64::from_bits(bits), held))
}

fn put<T>(list: &mut Vec<T>, item: T, held: &mut usize) -> Result<(), Broken> {
    *held += 1;
    if *held > MAX_BUCKETS {
        return Err(Broken::TooMany);
    }
    list.push(item);
    Ok(())
}
