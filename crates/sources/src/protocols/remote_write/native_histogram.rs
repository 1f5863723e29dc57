//! `Histogram`, the same in both versions: native histograms with bucket counts as deltas (integers) or absolute
//! (floats).

use wardroom_domain::{Buckets, NativeHistogram};

use crate::decode::protobuf::{DecodeError, Field, Message, unzigzag};

/// Maximum number of buckets in one request.
const MAX_BUCKETS_PER_REQUEST: usize = 2_000_000;

/// Reads a histogram; `bucket_count` counts the buckets of the whole request.
pub(super) fn read_histogram(bytes: &[u8], bucket_count: &mut usize) -> Result<NativeHistogram, DecodeError> {
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
            (8, Field::Bytes(_, span)) => push_counted(&mut histogram.negative.spans, read_span(span)?, bucket_count)?,
            (9, field) => read_deltas(field, &mut below, &mut histogram.negative, bucket_count)?,
            (10, field) => read_doubles(field, &mut histogram.negative.counts, bucket_count)?,
            (11, Field::Bytes(_, span)) => push_counted(&mut histogram.positive.spans, read_span(span)?, bucket_count)?,
            (12, field) => read_deltas(field, &mut above, &mut histogram.positive, bucket_count)?,
            (13, field) => read_doubles(field, &mut histogram.positive.counts, bucket_count)?,
            (14, Field::Varint(hint)) => histogram.reset_hint = u8::try_from(hint).unwrap_or_default(),
            (15, Field::Varint(ts_ms)) => histogram.ts_ms = ts_ms as i64,
            (16, field) => read_doubles(field, &mut histogram.bounds, bucket_count)?,
            _ => {}
        }
    }
    Ok(histogram)
}

fn read_span(bytes: &[u8]) -> Result<(i32, u32), DecodeError> {
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

fn read_deltas(
    field: Field<'_>,
    last: &mut i64,
    buckets: &mut Buckets,
    bucket_count: &mut usize,
) -> Result<(), DecodeError> {
    field.for_each_varint(|delta| {
        *last = last.wrapping_add(unzigzag(delta));
        push_counted(&mut buckets.counts, *last as f64, bucket_count)
    })
}

fn read_doubles(field: Field<'_>, list: &mut Vec<f64>, bucket_count: &mut usize) -> Result<(), DecodeError> {
    field.for_each_fixed64(|bits| push_counted(list, f64::from_bits(bits), bucket_count))
}

fn push_counted<T>(list: &mut Vec<T>, item: T, bucket_count: &mut usize) -> Result<(), DecodeError> {
    *bucket_count += 1;
    if *bucket_count > MAX_BUCKETS_PER_REQUEST {
        return Err(DecodeError::TooManyRecords);
    }
    list.push(item);
    Ok(())
}
