//! Values of single flags: sizes, limits, hosts, names with values.

use std::net::IpAddr;
use std::time::Duration;

use super::usage::Usage;

/// Bytes: a number with `b`, `k`, `m`, `g` or `t` (powers of 1024; `mb` and `mib` mean the same), decimals allowed.
pub(crate) fn size(flag: &str, text: &str) -> Result<u64, Usage> {
    let wrong = || {
        Usage::new(format!("{flag} `{text}` is not a size"))
            .hint("a number with b, k, m, g or t, such as 512m")
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let decimal: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = decimal * factor as f64;
    if bytes.is_finite() && (0.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// `NAME=SOFT[:HARD]`; -1 is no limit.
pub(crate) fn ulimit(text: &str) -> Result<(String, u64, u64), Usage> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let wrong =
        || Usage::new(format!("--ulimit `{text}` is not NAME=SOFT[:HARD]")).hint("such as nofile=1024:2048");
    let number = |text: &str| match text {
        "-1" => Ok(u64::MAX),
        _ => text.parse::<u64>().map_err(|_| wrong()),
    };
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    if !NAMES.contains(&name) {
        return Err(
            Usage::new(format!("--ulimit `{text}`: there is no limit `{name}`")).suggest(name, &NAMES)
        );
    }
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if soft > hard {
        return Err(Usage::new(format!("--ulimit `{text}`: the soft limit is above the hard one")));
    }
    Ok((name.to_owned(), soft, hard))
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`, the address maybe in brackets.
pub(crate) fn host(text: &str) -> Result<(String, String), Usage> {
    let wrong = || {
        Usage::new(format!("--add-host `{text}` is not NAME:ADDRESS"))
            .hint("such as db:192.0.2.7 or db=2001:db8::7")
    };
    let (name, address) = match text.find(['=', ':']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => return Err(wrong()),
    };
    if address == "host-gateway" {
        return Err(Usage::unsupported("--add-host with `host-gateway`"));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.is_empty() || name.len() > 253 || !name.chars().all(valid) {
        return Err(wrong());
    }
    let address: IpAddr = bare.parse().map_err(|_| wrong())?;
    Ok((name.to_owned(), address.to_string()))
}

/// `NAME=VALUE`, the name not empty.
pub(crate) fn name_and_value(flag: &str, text: &str) -> Result<(String, String), Usage> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Usage::new(format!("{flag} `{text}` is not NAME=VALUE"))),
    }
}

/// `true` or `false`, also `1` and `0`.
pub(crate) fn boolean(what: &str, text: &str) -> Result<bool, Usage> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(Usage::new(format!("{what}: `{text}` is neither true nor false"))),
    }
}

/// `--cpus`: a decimal number of CPUs, as quota and period in microseconds.
pub(crate) fn cpus(text: &str) -> Result<(u64, u64), Usage> {
    const PERIOD: u64 = 100_000;
    let number: f64 = text.parse().unwrap_or(f64::NAN);
    // the kernel takes no quota below a millisecond
    if !(0.01..=100_000.0).contains(&number) {
        return Err(
            Usage::new(format!("--cpus `{text}` is not a number of CPUs")).hint("0.01 or more, such as 1.5")
        );
    }
    Ok(((number * PERIOD as f64).round() as u64, PERIOD))
}

/// A time: numbers with `s`, `m`, `h`, `d` or `w`, one after the other, such as `1h30m`.
pub(crate) fn duration(flag: &str, text: &str) -> Result<Duration, Usage> {
    let wrong = || Usage::new(format!("{flag} `{text}` is not a time")).hint("such as 24h, 7d or 1h30m");
    let mut rest = text.trim();
    let mut seconds: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let mut unit = rest[digits..].chars();
        let factor = match unit.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 7 * 86_400,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(factor).and_then(|n| seconds.checked_add(n)).ok_or_else(wrong)?;
        rest = unit.as_str();
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("64m", Some(64 << 20)),
            ("64MB", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("1GiB", Some(1 << 30)),
            ("2 k", Some(2048)),
            ("-1", None),
            ("", None),
            ("m", None),
            ("1x", None),
            ("1.2.3m", None),
            ("99999999999t", None),
            ("18446744073709551615k", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size("--memory", text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn ulimits() {
        let ok = |name: &str, soft, hard| Some((name.to_owned(), soft, hard));
        let cases = [
            ("nofile=1024:2048", ok("nofile", 1024, 2048)),
            ("core=-1", ok("core", u64::MAX, u64::MAX)),
            ("nproc=5", ok("nproc", 5, 5)),
            ("nofile=2:1", None),
            ("nofile", None),
            ("nofile=x", None),
            ("nofiles=1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(ulimit(text).ok(), expected, "{text}");
        }
        assert_eq!(ulimit("nofiles=1").unwrap_err().hint_text(), Some("did you mean `nofile`?"));
    }

    #[test]
    fn hosts() {
        let ok = |name: &str, address: &str| Some((name.to_owned(), address.to_owned()));
        let cases = [
            ("db:192.0.2.7", ok("db", "192.0.2.7")),
            ("db=192.0.2.7", ok("db", "192.0.2.7")),
            ("db:2001:db8::7", ok("db", "2001:db8::7")),
            ("db=[2001:db8::7]", ok("db", "2001:db8::7")),
            ("db", None),
            ("db:here", None),
            (":192.0.2.7", None),
            ("a b:192.0.2.7", None),
            ("db\nx:192.0.2.7", None),
            ("db:host-gateway", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_of_cpus() {
        let cases = [
            ("1.5", Some((150_000, 100_000))),
            ("2", Some((200_000, 100_000))),
            ("0", None),
            ("x", None),
            ("nan", None),
            ("inf", None),
        ];
        for (text, expected) in cases {
            assert_eq!(cpus(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn times() {
        let cases = [
            ("24h", Some(86_400)),
            ("7d", Some(7 * 86_400)),
            ("1h30m", Some(5400)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("h", None),
            ("5x", None),
            ("99999999999999999999s", None),
            ("9999999999999999999w", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration("--older-than", text).ok().map(|d| d.as_secs()), expected, "{text}");
        }
    }
}
