//! Other people's rules that drop what is passed on (nftables, and iptables where it is made of them).
//!
//! A packet has to be accepted by every table, so where a chain's policy is to drop, as Docker makes it, nothing in ours
//! helps. There go two rules of ours into that chain, with the name of our table as their comment. They are removed at
//! the end; those of a process that was killed by the next one, which sees that there is no such table any more.
//!
//! They are written as iptables writes its own, so that it goes on reading the chain:
//! `-i brick+ -j ACCEPT`, `-o brick+ -j ACCEPT`. What the second lets in, our own table has looked at before.

use std::fmt;
use std::io;

use super::netlink::{ACK, Attributes, CREATE, DUMP, Message, NESTED, REQUEST, Socket};
use super::packets::{
    ACCEPT, DELETE_RULE, DROP, EQUAL, GET_CHAIN, GET_RULE, GET_TABLE, HOOK_FORWARD, META_IN_NAME,
    META_OUT_NAME, NEW_RULE, counter, head, interface, transaction, verdict,
};

/// What the names of our tables, and so our comments, begin with.
const OURS: &str = "bricklayer-";

/// A base chain that looks at what is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    family: u8,
    table: String,
    name: String,
    /// Is what no rule decides about dropped?
    drops: bool,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            1 => "inet",
            10 => "ip6",
            _ => "ip",
        };
        write!(f, "table {family} {}, chain {}", self.table, self.name)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned()
}

/// A chain of the kernel's answer (`struct nfgenmsg` and attributes), if packets that are passed on come through it.
fn parse_chain(answer: &[u8]) -> Option<Chain> {
    const INET: u8 = 1;
    let (family, attributes) = (*answer.first()?, answer.get(4..)?);
    let word = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let hook = word(Attributes::find(Attributes::find(attributes, 4)?, 1)?)?;
    let filters = text(Attributes::find(attributes, 7)?) == "filter";
    if hook != HOOK_FORWARD
        || !filters
        || ![INET, super::packets::IPV4, super::packets::IPV6].contains(&family)
    {
        return None;
    }
    let table = text(Attributes::find(attributes, 1)?);
    (!table.starts_with(OURS)).then(|| Chain {
        family,
        table,
        name: text(Attributes::find(attributes, 3).unwrap_or_default()),
        drops: Attributes::find(attributes, 5).and_then(word) == Some(DROP),
    })
}

/// Chains of others that see packets which are passed on.
pub(super) fn chains(socket: &mut Socket) -> io::Result<Vec<Chain>> {
    let answers = socket.dump(&Message::new(GET_CHAIN, REQUEST | DUMP, &head(0, 0)))?;
    Ok(answers.iter().filter_map(|(_, answer)| parse_chain(answer)).collect())
}

/// A rule of ours in somebody else's chain.
struct Rule {
    handle: Vec<u8>,
    comment: String,
}

/// Our rules in a chain, of any process.
fn our_rules(socket: &mut Socket, chain: &Chain) -> io::Result<Vec<Rule>> {
    let mut question = Message::new(GET_RULE, REQUEST | DUMP, &head(chain.family, 0));
    question.string(1, &chain.table);
    question.string(2, &chain.name);
    let parse = |answer: &[u8]| {
        let attributes = answer.get(4..)?;
        let comment = comment(Attributes::find(attributes, 7)?)?;
        let handle = Attributes::find(attributes, 3)?.to_vec();
        comment.starts_with(OURS).then_some(Rule { handle, comment })
    };
    Ok(socket.dump(&question)?.iter().filter_map(|(_, answer)| parse(answer)).collect())
}

/// The comment in what nftables keeps beside a rule: type (0), length, text with a NUL.
fn comment(data: &[u8]) -> Option<String> {
    let [0, length, ..] = *data else { return None };
    Some(text(data.get(2..2 + usize::from(length))?))
}

fn comment_data(text: &str) -> Vec<u8> {
    let mut data = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    data.extend_from_slice(text.as_bytes());
    data.push(0);
    data
}

fn accepting(chain: &Chain, which: u32, prefix: &str, comment: &str) -> Message {
    // Without APPEND it becomes the first.
    let mut message = Message::new(NEW_RULE, REQUEST | ACK | CREATE, &head(chain.family, 0));
    message.string(1, &chain.table);
    message.string(2, &chain.name);
    message.nest(4 | NESTED, |rule| {
        interface(rule, which, EQUAL, prefix);
        counter(rule);
        verdict(rule, ACCEPT);
    });
    message.attribute(7, &comment_data(comment));
    message
}

fn removal(chain: &Chain, rule: &Rule) -> (Message, bool) {
    let mut message = Message::new(DELETE_RULE, REQUEST | ACK, &head(chain.family, 0));
    message.string(1, &chain.table);
    message.string(2, &chain.name);
    message.attribute(3, &rule.handle);
    (message, true)
}

/// Lets what comes from and goes to interfaces of this name through the chains that would drop it; gives the chains.
/// Rules of processes that are gone are removed on the way. A chain that we may not change is left as it is: whether
/// that matters shows when packets are dropped.
pub(super) fn open_ways(socket: &mut Socket, table: &str, prefix: &str) -> io::Result<Vec<Chain>> {
    let dropping: Vec<Chain> = chains(socket)?.into_iter().filter(|chain| chain.drops).collect();
    if dropping.is_empty() {
        return Ok(dropping);
    }
    let alive: Vec<String> = socket
        .dump(&Message::new(GET_TABLE, REQUEST | DUMP, &head(0, 0)))?
        .iter()
        .filter_map(|(_, answer)| Some(text(Attributes::find(answer.get(4..)?, 1)?)))
        .collect();
    let mut opened = Vec::new();
    for chain in dropping {
        let left = our_rules(socket, &chain)?;
        let mut changes: Vec<_> = left
            .iter()
            .filter(|rule| !alive.contains(&rule.comment))
            .map(|rule| removal(&chain, rule))
            .collect();
        for which in [META_OUT_NAME, META_IN_NAME] {
            changes.push((accepting(&chain, which, prefix, table), true));
        }
        if transaction(socket, changes).is_ok() {
            opened.push(chain);
        }
    }
    Ok(opened)
}

/// Takes the rules back that [`open_ways`] made for this table.
pub(super) fn close_ways(socket: &mut Socket, table: &str, chains: &[Chain]) {
    for chain in chains {
        // A chain that is gone has no rules of ours either.
        let Ok(rules) = our_rules(socket, chain) else { continue };
        let changes: Vec<_> =
            rules.iter().filter(|rule| rule.comment == table).map(|rule| removal(chain, rule)).collect();
        if !changes.is_empty() {
            let _ = transaction(socket, changes);
        }
    }
}
