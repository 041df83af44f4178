//! `/etc/hosts` and `/etc/resolv.conf` of a command: made from what the host has, mounted over what the image has.

use std::fmt::Write;
use std::net::IpAddr;

/// `/etc/hosts`: the command's own name, and what the caller adds (name and address).
pub fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// The name servers of a `resolv.conf`(5).
pub fn name_servers(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(address) = words.next()
            // A zone (`fe80::1%eth0`) names an interface that only the host has.
            && let Ok(address) = address.parse()
        {
            found.push(address);
        }
    }
    found
}

/// A `resolv.conf` for a network namespace in which the host's loopback addresses are somebody else's: without the name
/// servers at such addresses. `None` if no name server would be left.
pub fn without_loopback(text: &str) -> Option<String> {
    let mut kept = String::new();
    let mut servers = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver") {
            match words.next().and_then(|word| word.parse::<IpAddr>().ok()) {
                Some(address) if !address.is_loopback() && !address.is_unspecified() => servers += 1,
                _ => continue,
            }
        }
        kept.push_str(line);
        kept.push('\n');
    }
    (servers > 0).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_the_own_name_and_the_added_ones() {
        let extra = [("db".to_owned(), "10.0.0.1".to_owned())];
        assert_eq!(
            hosts("builder", &extra),
            "127.0.0.1\tlocalhost builder\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n"
        );
    }

    #[test]
    fn name_servers_are_read() {
        let text = "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53\n nameserver ::1 # x\nnameserver fe80::1%eth0\nnameserver\n";
        let servers: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53", "::1"]);
    }

    #[test]
    fn loopback_servers_are_left_out() {
        let text = "search a\nnameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver ::1\noptions ndots:2";
        assert_eq!(
            without_loopback(text).as_deref(),
            Some("search a\nnameserver 10.0.0.2\noptions ndots:2\n")
        );
        assert_eq!(without_loopback("nameserver 127.0.0.53\n"), None);
        assert_eq!(without_loopback(""), None);
    }
}
