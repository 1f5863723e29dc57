//! Trace ids as people and other tools write them.

/// Length of a trace id, in hexadecimal digits.
pub const TRACE_ID_DIGITS: usize = 32;
/// Length of a span id, in hexadecimal digits.
pub const SPAN_ID_DIGITS: usize = 16;

/// Returns a trace id as it is stored: 32 lower-case hexadecimal digits.
///
/// Other tools cut leading zeros or show 64 bits only; W3C trace context pads those on the left. `None` if the text is
/// not 1 to 32 hexadecimal digits, or all of them are zero, which is no id.
pub fn normal_trace_id(text: &str) -> Option<String> {
    normal_id(text, TRACE_ID_DIGITS)
}

/// Returns a span id as it is stored: 16 lower-case hexadecimal digits; see [`normal_trace_id`].
pub fn normal_span_id(text: &str) -> Option<String> {
    normal_id(text, SPAN_ID_DIGITS)
}

fn normal_id(text: &str, digits: usize) -> Option<String> {
    let valid = text.len() <= digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_zero = text.bytes().all(|byte| byte == b'0');
    (valid && !is_zero).then(|| format!("{:0>digits$}", text.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_id_is_the_same_id() {
        let id = "000000000000000000a1b2c3d4e5f607";
        let (cut, capitals) = (id.trim_start_matches('0'), id.to_ascii_uppercase());
        for spelling in [id, &capitals, cut, &format!("0{cut}"), &format!("00{cut}"), "A1b2C3d4E5f607"] {
            assert_eq!(normal_trace_id(spelling).as_deref(), Some(id), "{spelling}");
        }
        assert_eq!(normal_span_id("ABC").as_deref(), Some("0000000000000abc"));
        for wrong in ["", "0", "00000000000000000000000000000000", "xyz", "0x1", "-1", &format!("0{id}"), "é"] {
            assert_eq!(normal_trace_id(wrong), None, "{wrong}");
        }
    }
}
