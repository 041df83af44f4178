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
}
