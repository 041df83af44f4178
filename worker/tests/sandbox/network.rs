//! Networks of commands.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use bricklayer_cache::root::ids::in_user_namespace;
use bricklayer_solver::op::Network;

use crate::fixture::{Root, output, ran};

fn on(root: &Root, network: Network, script: &str) -> String {
    let mut command = root.shell(script);
    command.network = network;
    output(command)
}

#[test]
fn without_a_network_there_is_loopback_only() {
    let root = Root::new();
    let text = on(
        &root,
        Network::None,
        "ls /sys/class/net; ip addr show lo | grep -c 'inet 127.0.0.1'; ping -c1 127.0.0.1 >&2",
    );
    assert_eq!(text, "lo\n1\n");
}

#[test]
fn the_private_network_is_its_own() {
    let root = Root::new();
    let mut command =
        root.shell("ls /sys/class/net; ip -4 addr show eth0 | grep -c inet; ip route | grep -c default");
    command.network = Network::Default;
    let ran = ran(command);
    assert_eq!(ran.exit.notes, Vec::<String>::new());
    assert_eq!(ran.stdout, "eth0\nlo\n1\n1\n");
    // What listens on the host's loopback can't be reached, what listens on all its addresses can.
    let local = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
    let port = local.local_addr().expect("address").port();
    assert_eq!(
        on(&root, Network::Default, &format!("nc -w 2 127.0.0.1 {port} </dev/null && echo reached; true")),
        ""
    );
    let open = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("listen");
    let port = open.local_addr().expect("address").port();
    let gateway = "$(ip route | awk '/default/ {print $3}')";
    if in_user_namespace() {
        // There the other end is not the host's.
        let script = format!("nc -w 2 {gateway} {port} </dev/null 2>/dev/null || echo out of reach");
        assert_eq!(on(&root, Network::Default, &script), "out of reach\n");
        return;
    }
    let answer = std::thread::spawn(move || {
        let (mut stream, from) = open.accept().expect("a connection");
        stream.write_all(b"hello").expect("write");
        from.ip()
    });
    let script = format!("nc {gateway} {port} </dev/null");
    assert_eq!(on(&root, Network::Default, &script), "hello");
    assert!(answer.join().expect("the server").is_ipv4());
}

#[test]
fn two_commands_do_not_reach_each_other() {
    let root = Root::new();
    let mut listener = root.shell(
        "ip -4 -o addr show eth0 | awk '{print $4}'; (sleep 20; kill 1) & nc -l -p 7777 -e echo reached",
    );
    listener.network = Network::Default;
    let (sender, receiver) = std::sync::mpsc::channel();
    let cancel = tokio_util::sync::CancellationToken::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let show = |_, bytes: &[u8]| {
                let _ = sender.send(String::from_utf8_lossy(bytes).into_owned());
            };
            let _ = bricklayer_worker::sandbox::run(listener, &show, &cancel);
        });
        let address = receiver.recv().expect("an address");
        let address = address.split('/').next().expect("an address").trim().to_owned();
        let other = Root::new();
        let script = format!("nc -w 2 {address} 7777 </dev/null && echo connected; true");
        assert_eq!(on(&other, Network::Default, &script), "");
        // From the host it can be reached, so that this says something.
        let mut stream =
            std::net::TcpStream::connect((address.as_str(), 7777)).expect("connect from the host");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        cancel.cancel();
    });
}

#[test]
fn the_host_network_is_the_host_s() {
    let root = Root::new();
    let local = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
    let port = local.local_addr().expect("address").port();
    let server = std::thread::spawn(move || drop(local.accept()));
    let script = format!("nc -w 5 127.0.0.1 {port} </dev/null && echo reached");
    assert_eq!(on(&root, Network::Host, &script), "reached\n");
    server.join().expect("the server");
}
