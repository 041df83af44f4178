//! The host's settings for passing packets on. They stay as they are set here: whether somebody else has come to rely on
//! them can't be known.

use std::fs;
use std::io;

/// Writes a setting, unless it has this value already.
fn set(path: &str, value: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == value { Ok(()) } else { fs::write(path, value) }
}

/// Lets IPv4 packets that come in on an interface be passed on.
pub(super) fn ipv4(interface: &str) -> io::Result<()> {
    set(&format!("/proc/sys/net/ipv4/conf/{interface}/forwarding"), "1")
}

/// The same for IPv6.
///
/// Before Linux 6.17 there is only one switch for all interfaces, which also makes the host a router: one that no longer
/// listens to other routers. Those that did go on doing so (`accept_ra` 2).
pub(super) fn ipv6(interface: &str) -> io::Result<()> {
    const ALL: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
    if fs::read_to_string(ALL)?.trim() != "0" {
        return Ok(());
    }
    let of = |interface: &str, name: &str| format!("/proc/sys/net/ipv6/conf/{interface}/{name}");
    match set(&of(interface, "force_forwarding"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf")?.flatten() {
        if let Some(name) = entry.file_name().to_str()
            && fs::read_to_string(of(name, "accept_ra")).is_ok_and(|value| value.trim() == "1")
        {
            fs::write(of(name, "accept_ra"), "2")?;
        }
    }
    fs::write(ALL, "1")
}
