//! What was done to the daemon since the session began, as text: kept for the case that it dies, and played again.

use std::fmt::Write;
use std::path::Path;

use super::messages::{Kind, Message};
use super::plan::{At, Link, Plan};
use crate::error::{Error, Result};
use crate::ring::Desc;

/// One thing done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A request was posted on a queue, tame or not.
    Post(u8, bool, Plan),
    /// A descriptor of a queue's table was overwritten.
    Poke(u8, u16, Desc),
    /// A head was made available once more.
    Head(u8, u16),
    /// The available index was set.
    Index(u8, u16),
    /// The rings were stopped and started anew.
    Recover,
    /// The rings of a connection of messages were filled with what follows from this seed.
    Fill(u64),
    /// A vhost-user message was sent.
    Say(Message),
}

/// The steps of a session.
#[derive(Debug, Default)]
pub(super) struct Journal {
    steps: Vec<Step>,
}

impl Journal {
    pub(super) fn clear(&mut self) {
        self.steps.clear();
    }

    pub(super) fn add(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Writes the session to a file.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let text: String = self.steps.iter().map(|step| line(step) + "\n").collect();
        std::fs::write(path, text).map_err(Error::io("write the record"))
    }

    /// Reads one that was saved.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read the record"))?;
        let bad = |(number, line): (usize, &str)| {
            parse(line).ok_or_else(|| Error::Protocol(format!("line {} of the record is no step: {line}", number + 1)))
        };
        Ok(Self { steps: text.lines().enumerate().map(bad).collect::<Result<_>>()? })
    }
}

/// A step as a line.
pub(super) fn line(step: &Step) -> String {
    match step {
        Step::Post(queue, tame, plan) => {
            let how = if *tame { "tame" } else { "wild" };
            let room = plan.room.map_or_else(|| "-".into(), |room| room.to_string());
            let (bytes, links, table) = (hex(&plan.bytes), links(&plan.links), links(&plan.table));
            format!("post {queue} {how} {room} {bytes} {links} {table}")
        }
        Step::Poke(queue, index, Desc { addr, len, flags, next }) => {
            format!("poke {queue} {index} {addr} {len} {flags} {next}")
        }
        Step::Head(queue, head) => format!("head {queue} {head}"),
        Step::Index(queue, index) => format!("index {queue} {index}"),
        Step::Recover => "recover".into(),
        Step::Fill(seed) => format!("fill {seed}"),
        Step::Say(message) => {
            let Message { request, flags, size, body, fds } = message;
            let kinds: Vec<String> = fds.iter().map(|kind| kind.number().to_string()).collect();
            format!("say {request} {flags} {size} {} {}", hex(body), or_dash(kinds.join(",")))
        }
    }
}

fn parse(line: &str) -> Option<Step> {
    let words: Vec<&str> = line.split(' ').collect();
    Some(match words[..] {
        ["post", queue, how, room, bytes, links, table] => {
            let room = if room == "-" { None } else { Some(room.parse().ok()?) };
            let (links, table) = (parse_links(links)?, parse_links(table)?);
            let plan = Plan { bytes: unhex(bytes)?, links, table, room };
            Step::Post(queue.parse().ok()?, how == "tame", plan)
        }
        ["poke", queue, index, addr, len, flags, next] => {
            let (addr, len) = (addr.parse().ok()?, len.parse().ok()?);
            let desc = Desc { addr, len, flags: flags.parse().ok()?, next: next.parse().ok()? };
            Step::Poke(queue.parse().ok()?, index.parse().ok()?, desc)
        }
        ["head", queue, head] => Step::Head(queue.parse().ok()?, head.parse().ok()?),
        ["index", queue, index] => Step::Index(queue.parse().ok()?, index.parse().ok()?),
        ["recover"] => Step::Recover,
        ["fill", seed] => Step::Fill(seed.parse().ok()?),
        ["say", request, flags, size, body, kinds] => Step::Say(Message {
            request: request.parse().ok()?,
            flags: flags.parse().ok()?,
            size: size.parse().ok()?,
            body: unhex(body)?,
            fds: list(kinds).map(|kind| Kind::from_number(kind.parse().ok()?)).collect::<Option<_>>()?,
        }),
        _ => return None,
    })
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|part| *part != "-")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    or_dash(text)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

fn links(links: &[Link]) -> String {
    let one = |link: &Link| {
        let (kind, value) = match link.at {
            At::Request(offset) => ('r', offset),
            At::Reply(offset) => ('w', offset),
            At::Table(offset) => ('t', offset),
            At::Scratch(offset) => ('s', offset),
            At::Absolute(address) => ('a', address),
        };
        format!("{kind}{value}:{}:{}:{}", link.len, link.flags, link.next)
    };
    or_dash(links.iter().map(one).collect::<Vec<_>>().join(","))
}

fn parse_links(text: &str) -> Option<Vec<Link>> {
    list(text).map(parse_link).collect()
}

fn parse_link(text: &str) -> Option<Link> {
    let mut parts = text.split(':');
    let place = parts.next()?;
    let value = place.get(1..)?.parse().ok()?;
    let at = match place.get(..1)? {
        "r" => At::Request(value),
        "w" => At::Reply(value),
        "t" => At::Table(value),
        "s" => At::Scratch(value),
        "a" => At::Absolute(value),
        _ => return None,
    };
    let (len, flags, next) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(Link { at, len, flags, next })
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    #[test]
    fn a_step_is_read_as_it_was_written() {
        let mut rng = Rng::with_seed(3);
        let mut steps = vec![Step::Recover, Step::Fill(u64::MAX), Step::Head(1, 65535), Step::Index(4, 7)];
        steps.push(Step::Poke(2, 9, Desc { addr: u64::MAX, len: u32::MAX, flags: 3, next: 4 }));
        for indirect in [false, true] {
            let mut plan = Plan::new(&mut rng, (0..90).collect(), 80, indirect);
            steps.push(Step::Post(0, true, plan.clone()));
            plan.mutate(&mut rng);
            steps.push(Step::Post(0, false, plan));
        }
        let fds = vec![Kind::Event, Kind::FullPipe];
        steps.push(Step::Say(Message { request: 5, flags: 1, size: 9, body: vec![1, 2], fds }));
        steps.push(Step::Say(Message { request: 5, flags: 1, size: 0, body: Vec::new(), fds: Vec::new() }));
        for step in steps {
            assert_eq!(parse(&line(&step)), Some(step));
        }
    }
}
