//! `/etc/hosts` and `/etc/resolv.conf` of a command: made from what the host has, mounted over what the image has.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// `/etc/hosts`: the command's own name, and what the caller adds (name and address).
pub fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// A name server as `resolv.conf`(5) has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameServer {
    /// Its address.
    pub address: IpAddr,
    /// The interface that the address belongs to (`fe80::1%eth0`).
    pub zone: Option<String>,
}

impl NameServer {
    fn parse(word: &str) -> Option<Self> {
        let (address, zone) = match word.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (word, None),
        };
        Some(Self { address: address.parse().ok()?, zone })
    }

    /// Can it be reached from a network namespace that only has routes to other networks?
    fn is_routable(&self, ipv6: bool) -> bool {
        let local = match self.address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => !ipv6 || self.zone.is_some() || address.is_unicast_link_local(),
        };
        !local && !self.address.is_loopback() && !self.address.is_unspecified()
    }
}

/// The name server that a line of `resolv.conf` names, if it is such a line.
fn server_of(line: &str) -> Option<Option<NameServer>> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next().and_then(NameServer::parse))
}

/// The name servers of a `resolv.conf`(5).
pub fn name_servers(text: &str) -> Vec<NameServer> {
    text.lines().filter_map(server_of).flatten().collect()
}

/// A `resolv.conf` for a network namespace whose way out is a route (for IPv6 only if `ipv6`): without the name servers
/// that only the host itself reaches. `None` if no name server would be left.
pub fn routable(text: &str, ipv6: bool) -> Option<String> {
    let (mut kept, mut servers) = (String::new(), 0);
    for line in text.lines() {
        match server_of(line) {
            Some(Some(server)) if server.is_routable(ipv6) => servers += 1,
            Some(_) => continue,
            None => {}
        }
        kept.push_str(line);
        kept.push('\n');
    }
    (servers > 0).then_some(kept)
}

/// A `resolv.conf` whose only name server is this one.
fn with_server(text: &str, server: IpAddr) -> String {
    let mut kept = format!("nameserver {server}\n");
    for line in text.lines().filter(|line| server_of(line).is_none()) {
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// How names are resolved in a private network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolution {
    /// `/etc/resolv.conf`.
    pub(crate) resolv_conf: String,
    /// Where a name server of our own listens inside, and which one of the host it passes questions on to.
    pub(crate) forward: Option<(IpAddr, NameServer)>,
}

impl Resolution {
    /// Of the host's files. Its name server may be one that only the host reaches: at a loopback address (systemd-resolved
    /// knows better ones, dnsmasq does not), or at one that belongs to an interface. Then ours passes questions on.
    pub(crate) fn of_host(ipv6: bool) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::choose(read("/etc/resolv.conf"), &read("/run/systemd/resolve/resolv.conf"), ipv6)
    }

    fn choose(of_host: String, behind: &str, ipv6: bool) -> Self {
        if let Some(resolv_conf) = routable(&of_host, ipv6).or_else(|| routable(behind, ipv6)) {
            return Self { resolv_conf, forward: None };
        }
        let usable = |server: &NameServer| {
            let link_local = matches!(server.address, IpAddr::V6(address) if address.is_unicast_link_local());
            !server.address.is_unspecified() && (!link_local || server.zone.is_some())
        };
        match name_servers(&of_host).into_iter().find(usable) {
            Some(server) => {
                // Programs may know a loopback address by heart.
                let inside = match server.address {
                    address if address.is_loopback() => address,
                    _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
                };
                Self { resolv_conf: with_server(&of_host, inside), forward: Some((inside, server)) }
            }
            None => Self { resolv_conf: of_host, forward: None },
        }
    }
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
        let text = "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53\n nameserver ::1 # x\n\
                    nameserver fe80::1%eth0\nnameserver\nnameserver x\n";
        let servers: Vec<String> = name_servers(text)
            .iter()
            .map(|server| format!("{} {}", server.address, server.zone.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(servers, ["127.0.0.53 -", "::1 -", "fe80::1 eth0"]);
    }

    #[test]
    fn servers_that_only_the_host_reaches_are_left_out() {
        let text = "search a\nnameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver ::1\nnameserver fd00::2\n\
                    nameserver fe80::1%eth0\noptions ndots:2";
        assert_eq!(
            routable(text, false).as_deref(),
            Some("search a\nnameserver 10.0.0.2\noptions ndots:2\n")
        );
        assert_eq!(
            routable(text, true).as_deref(),
            Some("search a\nnameserver 10.0.0.2\nnameserver fd00::2\noptions ndots:2\n")
        );
        assert_eq!(routable("nameserver 127.0.0.53\n", true), None);
        assert_eq!(routable("nameserver fd00::2\n", false), None);
        assert_eq!(routable("", true), None);
    }

    #[test]
    fn questions_are_passed_on_where_no_server_can_be_reached() {
        let choose = |host: &str, behind: &str, ipv6| {
            let chosen = Resolution::choose(host.to_owned(), behind, ipv6);
            let forward = chosen.forward.map(|(inside, server)| {
                format!("{inside} to {}%{}", server.address, server.zone.unwrap_or_default())
            });
            (chosen.resolv_conf, forward)
        };
        let (local, remote) = ("nameserver 127.0.0.53\n", "nameserver 10.0.0.2\n");
        let plain = |text: &str| (text.to_owned(), None);
        let passed = |text: &str, forward: &str| (text.to_owned(), Some(forward.to_owned()));
        assert_eq!(choose(remote, "", false), plain(remote));
        assert_eq!(choose(local, remote, false), plain(remote));
        assert_eq!(choose(local, "", false), passed(local, "127.0.0.53 to 127.0.0.53%"));
        assert_eq!(choose("nameserver ::1", "", true), passed("nameserver ::1\n", "::1 to ::1%"));
        assert_eq!(
            choose("search a\nnameserver fd00::2\n", "", false),
            passed("nameserver 127.0.0.1\nsearch a\n", "127.0.0.1 to fd00::2%")
        );
        assert_eq!(choose("nameserver fd00::2\n", "", true), plain("nameserver fd00::2\n"));
        assert_eq!(
            choose("nameserver fe80::1%eth0", "", true),
            passed("nameserver 127.0.0.1\n", "127.0.0.1 to fe80::1%eth0")
        );
        assert_eq!(choose("nameserver fe80::1\n", "", true), plain("nameserver fe80::1\n"));
        assert_eq!(choose("", "", true), plain(""));
    }
}
