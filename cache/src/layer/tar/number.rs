//! Numbers in header blocks: octal text, or base-256 with the first bit set (GNU).

/// A number in a header field; `None`: neither form, or beyond 64 bits.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

/// Octal digits between blanks and NULs; no digit at all is 0. As in Go, what follows a NUL does not count.
fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    let digits = field.get(start..end)?.split(|byte| *byte == 0).next()?;
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

/// Two's complement, big-endian; the first bit says that it is this form, the second one is the sign.
fn base256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    let mut value: i128 = i128::from(first & 0x3f);
    if negative {
        value -= 0x40;
    }
    for byte in rest {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
        if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
            return None;
        }
    }
    i64::try_from(value).ok()
}

/// Decimal digits with an optional sign, as PAX records have them.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// A PAX time: seconds with an optional fraction. Digits beyond nanoseconds are cut off, towards the past.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let whole: i64 = if seconds.is_empty() || seconds == "-" { 0 } else { decimal(seconds.as_bytes())? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut nanos = 0;
    for place in 0..9 {
        nanos = nanos * 10 + u32::from(fraction.as_bytes().get(place).map_or(0, |digit| digit - b'0'));
    }
    match (negative, nanos) {
        (true, 1..) => Some((whole.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((whole, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields() {
        let cases: [(&[u8], Option<i64>); 13] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000000017", Some(15)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"644\0zzzz", Some(0o644)),
            (b"0000648\0", None),
            (b"12 34\0\0\0", None),
            (b"-0000001", None),
            (&[0x80, 0, 0, 0, 0, 0, 1, 0], Some(256)),
            (&[0xff; 12], Some(-1)),
            (&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(i64::MAX)),
            (&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], None),
            (b"777777777777777777777777", None),
        ];
        for (field, expected) in cases {
            assert_eq!(parse(field), expected, "{field:?}");
        }
    }

    #[test]
    fn pax_times() {
        let cases: [(&str, Option<(i64, u32)>); 8] = [
            ("1350244992.023960108", Some((1_350_244_992, 23_960_108))),
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.25", Some((-1, 750_000_000))),
            ("1.0000000009", Some((1, 0))),
            ("1.x", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }
}
