//! Durations as Go writes and reads them (`time.ParseDuration`, `time.Duration.String`), in nanoseconds.

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses `1h30m`, `1.5s`, `250ms`; a number without a unit is none, but for `0`.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, behind) = rest.split_at(digits);
        let (fraction, behind) = match behind.strip_prefix('.') {
            Some(behind) => {
                let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
                behind.split_at(digits)
            }
            None => ("", behind),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = behind.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(behind.len());
        let (name, behind) = behind.split_at(unit_end);
        let &(_, unit) = UNITS.iter().find(|(n, _)| *n == name)?;
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in fraction.bytes().take(18) {
            // what is below a nanosecond is cut off
            scale /= 10;
            total = total.checked_add(i64::from(digit - b'0').checked_mul(scale)?)?;
        }
        rest = behind;
    }
    Some(if negative { -total } else { total })
}

/// `1m30s`, `1.5s`, `250ms`, `0s`.
pub(crate) fn format(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let n = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64, suffix: &str| {
        let (whole, part) = (value / unit, value % unit);
        let width = unit.ilog10() as usize;
        let digits = format!("{part:0width$}");
        let digits = digits.trim_end_matches('0');
        if part == 0 { format!("{whole}{suffix}") } else { format!("{whole}.{digits}{suffix}") }
    };
    let text = match n {
        0..1_000 => format!("{n}ns"),
        1_000..1_000_000 => fraction(n, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(n, 1_000_000, "ms"),
        _ => {
            let minutes = n / 60_000_000_000;
            let seconds = fraction(n % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_as_go_does() {
        let cases = [
            ("30s", Some(30_000_000_000), "30s"),
            ("1m30s", Some(90_000_000_000), "1m30s"),
            ("1.5s", Some(1_500_000_000), "1.5s"),
            ("2h", Some(7_200_000_000_000), "2h0m0s"),
            ("250ms", Some(250_000_000), "250ms"),
            ("1h1ms", Some(3_600_001_000_000), "1h0m0.001s"),
            ("1.5µs", Some(1500), "1.5µs"),
            ("7ns", Some(7), "7ns"),
            (".5s", Some(500_000_000), "500ms"),
            ("0", Some(0), "0s"),
            ("-1s", Some(-1_000_000_000), "-1s"),
            ("30", None, ""),
            ("", None, ""),
            ("s", None, ""),
            ("1 s", None, ""),
            ("1x", None, ""),
            ("99999999999h", None, ""),
        ];
        for (text, expected, printed) in cases {
            assert_eq!(parse(text), expected, "{text}");
            if let Some(nanoseconds) = expected {
                assert_eq!(format(nanoseconds), printed, "{text}");
            }
        }
    }
}
