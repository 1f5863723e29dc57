//! Numbers, bytes and ids as proto3 JSON and OTLP write them.
//!
//! <https://protobuf.dev/programming-guides/json/>

use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};

/// Maximum length of an integer as text; a longer one has more digits than a 64-bit number in any spelling in use.
const MAX_INTEGER_BYTES: usize = 64;
/// Maximum number of digits of an integer.
const MAX_DIGITS: i32 = 20;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD_BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const URL_SAFE_BASE64: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// Reads an integer exactly: `5`, `-5`, `5.0`, `1e3`, `1796001273.123456789e9`. `None` if it is not a number, has a
/// fraction, or has more than 20 digits.
pub(super) fn parse_integer(text: &str) -> Option<i128> {
    if text.len() > MAX_INTEGER_BYTES {
        return None;
    }
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |unsigned| (true, unsigned));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return exponent.parse::<i32>().ok().map(|_| 0);
    }
    // The number is `significant` with `zeros` zeros after it.
    let cut = i32::try_from(digits.len() - significant.len()).ok()?;
    let zeros = exponent.parse::<i32>().ok()?.checked_add(cut)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if !(0..=MAX_DIGITS).contains(&zeros) {
        return None;
    }
    let number = significant.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(zeros.cast_unsigned())?)?;
    Some(if negative { -number } else { number })
}

/// Decodes base64 in the standard or the URL-safe alphabet, with or without padding.
pub(super) fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let engine = if text.contains(['-', '_']) { URL_SAFE_BASE64 } else { STANDARD_BASE64 };
    engine.decode(text)
}

/// Decodes an id of `size` bytes from hexadecimal digits of either case. Zeros that the sender cut on the left are
/// added; no digits give no bytes. `None` if the text is not hexadecimal or too long.
pub(super) fn decode_id(text: &str, size: usize) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<Vec<u8>>>()?;
    if digits.is_empty() {
        return Some(Vec::new());
    }
    let missing = (size * 2).checked_sub(digits.len())?;
    let padded = [vec![0; missing], digits].concat();
    Some(padded.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_read_exactly_in_every_spelling() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("0.000e-5", 0),
            ("5.0", 5),
            ("1e3", 1000),
            ("1E+3", 1000),
            ("12.50e1", 125),
            ("1000e-3", 1),
            ("1796001273.0e9", 1_796_001_273_000_000_000),
            ("1796001273.123456789e9", 1_796_001_273_123_456_789),
            ("-9223372036854775808", i128::from(i64::MIN)),
            ("1.8446744073709551615e19", i128::from(u64::MAX)),
        ] {
            assert_eq!(parse_integer(text), Some(number), "{text}");
        }
        for wrong in
            ["", "-", "5.5", "1e-1", "1e", "e1", ".5", "5.", "+5", "0x5", "NaN", "1e99", "1 ", "true", "1e9999999999"]
        {
            assert_eq!(parse_integer(wrong), None, "{wrong}");
        }
        assert_eq!(parse_integer(&"1".repeat(65)), None);
    }

    #[test]
    fn bytes_and_ids_are_read_in_every_spelling() {
        for text in ["+/8=", "+/8", "-_8=", "-_8", "+/9="] {
            assert_eq!(decode_base64(text).unwrap(), [0xfb, 0xff], "{text}");
        }
        assert_eq!(decode_base64("").unwrap(), [0_u8; 0]);
        for wrong in ["+_8=", "+", "a=b", "é"] {
            assert!(decode_base64(wrong).is_err(), "{wrong}");
        }
        for text in ["00ab", "00AB", "ab", "0ab"] {
            assert_eq!(decode_id(text, 2), Some(vec![0, 0xab]), "{text}");
        }
        assert_eq!(decode_id("", 2), Some(Vec::new()));
        assert_eq!((decode_id("00000", 2), decode_id("xy", 2)), (None, None));
    }

    proptest! {
        #[test]
        fn any_number_with_an_exponent_is_read(number: i64, point in 0_usize..19) {
            let digits = number.unsigned_abs().to_string();
            let split = digits.len().saturating_sub(point).max(1);
            let (whole, fraction) = digits.split_at(split);
            let sign = if number < 0 { "-" } else { "" };
            let text = format!("{sign}{whole}.{fraction}0e{}", digits.len() - split);
            prop_assert_eq!(parse_integer(&text), Some(i128::from(number)), "{}", text);
        }
    }
}
