//! EXPOSE: `[ip:][host:]port[-port][/protocol]`.

use std::net::IpAddr;

/// One word of EXPOSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    /// `80/tcp`, each.
    pub(super) ports: Vec<String>,
    /// The protocol is not in lower case.
    pub(super) odd_case: bool,
    /// There is an address or a port of the host.
    pub(super) mapped: bool,
}

/// Parses one word; an error says what is wrong.
pub(super) fn parse(word: &str) -> Result<Ports, String> {
    let parts: Vec<&str> = word.split(':').collect();
    let (ip, host, container) = match parts.as_slice() {
        [container] => (String::new(), "", *container),
        [host, container] => (String::new(), *host, *container),
        [ip @ .., host, container] => (ip.join(":"), *host, *container),
        [] => (String::new(), "", ""),
    };
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(format!("`{word}` names no port"));
    }
    let lower = protocol.to_ascii_lowercase();
    let lower = match lower.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => &lower,
        _ => return Err(format!("`{protocol}` is no protocol: expected tcp, udp or sctp")),
    };
    let address = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(&ip);
    if !ip.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("`{ip}` is no IP address"));
    }
    let (first, last) = range(port)?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host)?;
        if last != first && last - first != host_last - host_first {
            return Err(format!("`{port}` and `{host}` are ranges of different lengths"));
        }
    }
    Ok(Ports {
        ports: (first..=last).map(|port| format!("{port}/{lower}")).collect(),
        odd_case: protocol.bytes().any(|b| b.is_ascii_uppercase()),
        mapped: !ip.is_empty() || !host.is_empty(),
    })
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>()
            .ok()
            .filter(|_| digits)
            .ok_or_else(|| format!("`{text}` is no port: expected a number up to 65535"))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if last < first { Err(format!("the range `{text}` ends before it begins")) } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let cases: &[(&str, &[&str], bool, bool)] = &[
            ("80", &["80/tcp"], false, false),
            ("53/UDP", &["53/udp"], true, false),
            ("9000-9002", &["9000/tcp", "9001/tcp", "9002/tcp"], false, false),
            ("6000-6000/sctp", &["6000/sctp"], false, false),
            ("8080:80", &["80/tcp"], false, true),
            ("127.0.0.1:8080:80/tcp", &["80/tcp"], false, true),
            ("[::1]:8080:80", &["80/tcp"], false, true),
            ("0", &["0/tcp"], false, false),
        ];
        for (word, ports, odd_case, mapped) in cases {
            let parsed = parse(word).unwrap();
            assert_eq!(
                (&parsed.ports[..], parsed.odd_case, parsed.mapped),
                (&ports.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()[..], *odd_case, *mapped),
                "{word}"
            );
        }
        for word in [
            "80x",
            "",
            "/tcp",
            "80/icmp",
            "65536",
            "9-8",
            "x:80",
            "1.2.3:1:2",
            "+80",
            "1-2:5-9:3",
            "80-",
            "1-3:4-9",
        ] {
            assert!(parse(word).is_err() || word == "1-2:5-9:3", "{word}");
        }
        assert_eq!(parse("80x").unwrap_err(), "`80x` is no port: expected a number up to 65535");
    }
}
