//! Small languages: CSV lists, sizes, signals, times, Go's quoting.

/// The fields of one line of CSV (RFC 4180): parted by commas, in double quotes where they hold commas or quotes. `None`: a quote
/// stands where none may.
pub(crate) fn csv(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let mut field = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let end = rest.find('"')?;
                field.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix('"') {
                    Some(behind) => {
                        field.push('"');
                        rest = behind;
                    }
                    None => break,
                }
            }
            if !(rest.is_empty() || rest.starts_with(',')) {
                return None;
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
            if field.contains('"') {
                return None;
            }
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None => return Some(fields),
        }
    }
}

/// A size in bytes: `64k`, `1.5g`, `10MB`, `4 KiB`; units are powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok().filter(|_| text.starts_with(|c: char| c.is_ascii_digit()))?;
    let unit = text[end..].strip_prefix(' ').unwrap_or(&text[end..]).to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if !unit.starts_with('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    if unit.matches('b').count() > 1 || unit.matches('i').count() > 1 {
        return None;
    }
    let value = number * 1024f64.powi(power);
    // above this a float is no exact number of bytes any more, and no machine has as much
    (value < 9e15).then_some(value as u64)
}

/// The names of Linux's signals, without `SIG`.
pub(crate) const SIGNALS: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

/// Is it a signal of Linux: a number, a name with or without `SIG` in any case, or a real-time signal (`RTMIN+1`)?
pub(crate) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return number != 0;
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |digits: &str, most: u32| {
        !digits.starts_with('0')
            && digits.bytes().all(|b| b.is_ascii_digit())
            && digits.parse().is_ok_and(|n: u32| n <= most)
    };
    SIGNALS.contains(&name)
        || name == "RTMAX"
        || name.strip_prefix("RTMIN+").is_some_and(|digits| offset(digits, 15))
        || name.strip_prefix("RTMAX-").is_some_and(|digits| offset(digits, 14))
}

/// Seconds since 1970 as RFC 3339, in UTC; years from 0 to 9999.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // days since 0000-03-01, in eras of 400 years (proleptic Gregorian calendar)
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// A text as Go's `%q` prints it.
pub(crate) fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii() && c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c != ' ' && (c.is_control() || c.is_whitespace()) => {
                out.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A list as Go's `%v` prints it.
pub(crate) fn go_list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(" "))
}

/// A list as Go's `%q` prints it.
pub(crate) fn go_quoted_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| go_quote(item)).collect();
    format!("[{}]", items.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("a,b=c", Some(&["a", "b=c"])),
            ("", Some(&[""])),
            ("a,", Some(&["a", ""])),
            ("\"a,b\",\"c\"\"d\"", Some(&["a,b", "c\"d"])),
            ("a\"b", None),
            ("\"a", None),
            ("\"a\"b", None),
        ];
        for (line, expected) in cases {
            assert_eq!(
                csv(line).as_deref(),
                expected.map(|e| e.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).as_deref(),
                "{line}"
            );
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("64k", Some(65_536)),
            ("1.5g", Some(1_610_612_736)),
            ("10MB", Some(10_485_760)),
            ("4 KiB", Some(4096)),
            ("7", Some(7)),
            ("7b", Some(7)),
            ("", None),
            ("k", None),
            ("1x", None),
            ("-1k", None),
            ("1kbb", None),
            ("9999999p", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn signals() {
        for text in ["9", "SIGKILL", "kill", "RTMIN+3", "SIGRTMAX-14", "rtmax", "SigTerm"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["", "0", "SIGNOPE", "RTMIN+16", "RTMIN+", "RTMIN-1", "-9", "SIG"] {
            assert!(!is_signal(text), "{text}");
        }
    }

    #[test]
    fn times() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(rfc3339(seconds), expected);
        }
    }

    #[test]
    fn quoting() {
        assert_eq!(go_quote("a \"b\" \\ \t\n\u{1}é"), "\"a \\\"b\\\" \\\\ \\t\\n\\x01é\"");
        assert_eq!(go_quoted_list(&["a".into(), String::new()]), "[\"a\" \"\"]");
    }
}
