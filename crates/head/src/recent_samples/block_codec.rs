//! Encoding of one block: up to [`BLOCK_SAMPLES`] samples of one series.
//!
//! Layout: count u8, scheme u8, first timestamp (zigzag varint), then the timestamps, then the values.
//! Timestamps: the first step as a varint; if every step is equal, nothing more, otherwise each later step as the
//! zigzag difference from the step before. Values use the first scheme that represents them exactly:
//!
//! * decimal: every value is `mantissa / 10^exponent` (typical of exporters); the first mantissa as a varint, the
//!   others as zigzag differences, bit-packed to the width of the widest;
//! * XOR: each value XOR the one before, bit-packed to the range of bits that change (as in Gorilla, with one
//!   window per block).
//!
//! Sources: Pelkonen et al., "Gorilla" (VLDB 2015); the division by an exact power of ten is ADR 005.

use wardroom_domain::Sample;

/// Samples per sealed block.
pub(crate) const BLOCK_SAMPLES: usize = 16;

const SAME_STEP_FLAG: u8 = 0x80;
const XOR_SCHEME: u8 = 0x7f;
/// Divisors of the decimal scheme, by exponent. A double represents each exactly.
const POWERS_OF_TEN: [f64; 7] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6];
/// Largest mantissa: a double represents every integer up to 2^53 exactly.
const MAX_MANTISSA: u64 = 1 << 53;

/// Appends a block of at most 255 samples, ascending by time.
pub(crate) fn encode(samples: &[Sample], out: &mut Vec<u8>) {
    let Some(first) = samples.first() else { return };
    let step = samples.get(1).map_or(0, |second| second.ts_ms.wrapping_sub(first.ts_ms));
    let steps = || samples.windows(2).map(|pair| pair[1].ts_ms.wrapping_sub(pair[0].ts_ms));
    let same = steps().all(|next| next == step);
    let decimal =
        (0..POWERS_OF_TEN.len()).find_map(|exponent| mantissas(samples, exponent).map(|found| (exponent, found)));
    out.push(samples.len() as u8);
    out.push(if same { SAME_STEP_FLAG } else { 0 } | decimal.map_or(XOR_SCHEME, |(exponent, _)| exponent as u8));
    put_varint(out, zigzag(first.ts_ms));
    put_varint(out, zigzag(step));
    if !same {
        let mut before = step;
        for next in steps().skip(1) {
            put_varint(out, zigzag(next.wrapping_sub(before)));
            before = next;
        }
    }
    let mut packed = [0_u64; BLOCK_SAMPLES];
    let packed = &mut packed[..samples.len().min(BLOCK_SAMPLES)];
    if let Some((_, mantissas)) = decimal {
        put_varint(out, zigzag(mantissas[0]));
        for (index, slot) in packed.iter_mut().enumerate().skip(1) {
            *slot = zigzag(mantissas[index].wrapping_sub(mantissas[index - 1]));
        }
        pack(&packed[1..], 0, out);
    } else {
        out.extend(first.value.to_bits().to_le_bytes());
        for (index, slot) in packed.iter_mut().enumerate().skip(1) {
            *slot = samples[index].value.to_bits() ^ samples[index - 1].value.to_bits();
        }
        let changed = packed[1..].iter().fold(0, |all, bits| all | bits);
        let shift = if changed == 0 { 0 } else { changed.trailing_zeros() };
        out.push(shift as u8);
        pack(&packed[1..], shift, out);
    }
}

/// Decodes the block at the start of `bytes`, appends its samples and returns the remaining bytes. Returns `None`
/// if the block is incomplete or invalid.
pub(crate) fn decode<'a>(mut bytes: &'a [u8], samples: &mut Vec<Sample>) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    bytes = rest;
    let count = usize::from(head[0]);
    if count == 0 || count > BLOCK_SAMPLES {
        return None;
    }
    let mut ts_ms = unzigzag(take_varint(&mut bytes)?);
    let mut step = unzigzag(take_varint(&mut bytes)?);
    let start = samples.len();
    for index in 0..count {
        if index > 0 {
            if index > 1 && head[1] & SAME_STEP_FLAG == 0 {
                step = step.wrapping_add(unzigzag(take_varint(&mut bytes)?));
            }
            ts_ms = ts_ms.wrapping_add(step);
        }
        samples.push(Sample { ts_ms, value: 0.0 });
    }
    let mut packed = [0_u64; BLOCK_SAMPLES];
    let packed = &mut packed[..count];
    let exponent = head[1] & !SAME_STEP_FLAG;
    let slots = &mut samples[start..];
    if exponent == XOR_SCHEME {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        packed[0] = u64::from_le_bytes(*first);
        let (shift, rest) = rest.split_first()?;
        bytes = unpack(rest, u32::from(*shift), &mut packed[1..])?;
        let mut bits = 0;
        for (slot, changed) in slots.iter_mut().zip(packed) {
            bits ^= *changed;
            slot.value = f64::from_bits(bits);
        }
    } else {
        let power = *POWERS_OF_TEN.get(usize::from(exponent))?;
        let mut mantissa = unzigzag(take_varint(&mut bytes)?);
        bytes = unpack(bytes, 0, &mut packed[1..])?;
        for (index, slot) in slots.iter_mut().enumerate() {
            if index > 0 {
                mantissa = mantissa.wrapping_add(unzigzag(packed[index]));
            }
            slot.value = mantissa as f64 / power;
        }
    }
    Some(bytes)
}

/// Returns the values multiplied by the power of ten if all products are integers and dividing them restores every
/// value bit for bit. Minus zero, NaN and the infinities never qualify.
fn mantissas(samples: &[Sample], exponent: usize) -> Option<[i64; BLOCK_SAMPLES]> {
    let power = POWERS_OF_TEN[exponent];
    let mut found = [0; BLOCK_SAMPLES];
    for (slot, sample) in found.iter_mut().zip(samples) {
        let mantissa = (sample.value * power).round() as i64;
        if mantissa.unsigned_abs() > MAX_MANTISSA || (mantissa as f64 / power).to_bits() != sample.value.to_bits() {
            return None;
        }
        *slot = mantissa;
    }
    Some(found)
}

/// Appends the width (u8), then the numbers, shifted right and bit-packed, low bits first.
fn pack(numbers: &[u64], shift: u32, out: &mut Vec<u8>) {
    let all = numbers.iter().fold(0, |all, number| all | number >> shift);
    let width = 64 - all.leading_zeros();
    out.push(width as u8);
    let (mut held, mut bits) = (0_u128, 0);
    for number in numbers {
        held |= u128::from(number >> shift) << bits;
        bits += width;
        while bits >= 8 {
            out.push(held as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(held as u8);
    }
}

fn unpack<'a>(bytes: &'a [u8], shift: u32, numbers: &mut [u64]) -> Option<&'a [u8]> {
    let (width, bytes) = bytes.split_first()?;
    let width = u32::from(*width);
    if width > 64 || shift > 63 {
        return None;
    }
    let size = (numbers.len() * width as usize).div_ceil(8);
    let (packed, rest) = bytes.split_at_checked(size)?;
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    // The loop reads 16 bytes at each number's position.
    let mut padded = [0; BLOCK_SAMPLES * 8 + 16];
    padded.get_mut(..size)?.copy_from_slice(packed);
    let mut bit = 0;
    for number in numbers {
        let word = u128::from_le_bytes(*padded.get(bit / 8..)?.first_chunk()?);
        *number = ((word >> (bit % 8)) as u64 & mask) << shift;
        bit += width as usize;
    }
    Some(rest)
}

const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(samples: &[Sample]) -> usize {
        let mut bytes = Vec::new();
        encode(samples, &mut bytes);
        let size = bytes.len();
        bytes.push(42);
        let mut decoded = Vec::new();
        assert_eq!(decode(&bytes, &mut decoded), Some(&[42][..]));
        let bits = |samples: &[Sample]| samples.iter().map(|s| (s.ts_ms, s.value.to_bits())).collect::<Vec<_>>();
        assert_eq!(bits(&decoded), bits(samples));
        size
    }

    fn every_15_s(value: impl Fn(i64) -> f64) -> Vec<Sample> {
        (0..16).map(|step| Sample { ts_ms: 1_795_255_038_178 + step * 15_000, value: value(step) }).collect()
    }

    #[test]
    fn typical_exporter_values_compress_well() {
        assert!(round_trip(&every_15_s(|_| 0.1)) <= 15);
        assert!(round_trip(&every_15_s(|step| step as f64 * 1000.0)) <= 40);
        assert!(round_trip(&every_15_s(|step| 20.0 + (step % 5) as f64 / 10.0)) <= 25);
    }

    #[test]
    fn special_values_round_trip_bit_for_bit() {
        let special =
            [-0.0, 0.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 1e300, f64::from_bits(0x7ff0_0000_0000_0002)];
        for first in special {
            for second in special {
                round_trip(&[Sample { ts_ms: i64::MIN, value: first }, Sample { ts_ms: i64::MAX, value: second }]);
            }
        }
    }

    proptest! {
        #[test]
        fn any_samples_round_trip(samples in prop::collection::vec((any::<i64>(), any::<u64>()), 1..=BLOCK_SAMPLES)) {
            round_trip(&samples.iter().map(|(ts_ms, bits)| Sample { ts_ms: *ts_ms, value: f64::from_bits(*bits) }).collect::<Vec<_>>());
        }

        #[test]
        fn decimals_round_trip(values in prop::collection::vec(-1_000_000_i64..1_000_000, 1..=BLOCK_SAMPLES), power in 0_usize..9) {
            let power = 10_f64.powi(power as i32);
            round_trip(&values.iter().zip(0..).map(|(m, step)| Sample { ts_ms: step * 1000, value: *m as f64 / power }).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes, &mut Vec::new());
        }
    }
}
