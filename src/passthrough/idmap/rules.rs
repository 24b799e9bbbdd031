//! The rules of a map and their syntax: `type:source:target:count`, with any one separator for the colons.

use super::{IdMap, NO_ID, Span, Table, Target};

/// What a rule's type can be.
#[derive(Clone, Copy)]
enum Kind {
    Guest,
    Host,
    SquashGuest,
    SquashHost,
    ForbidGuest,
    Map,
}

/// Name, meaning, and the numbers that follow.
const KINDS: [(&str, Kind, &str); 6] = [
    ("guest", Kind::Guest, "<guest base>:<host base>:<count>"),
    ("host", Kind::Host, "<host base>:<guest base>:<count>"),
    ("squash-guest", Kind::SquashGuest, "<guest base>:<host id>:<count>"),
    ("squash-host", Kind::SquashHost, "<host base>:<guest id>:<count>"),
    ("forbid-guest", Kind::ForbidGuest, "<guest base>:<count>"),
    ("map", Kind::Map, "<guest base>:<host base>:<count>"),
];

/// Why a rule is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("id map: rule {rule:?}: {problem}")]
pub struct IdMapError {
    /// The rule as it was given.
    pub rule: String,
    /// What is wrong with it.
    pub problem: IdProblem,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdProblem {
    /// It begins with no known type.
    #[error("unknown type {0:?}, expected guest, host, squash-guest, squash-host, forbid-guest or map")]
    Type(String),
    /// It has too few or too many numbers.
    #[error("expected {name}:{fields}")]
    Fields {
        /// The type's name.
        name: &'static str,
        /// What belongs behind it.
        fields: &'static str,
    },
    /// Something is no number of 32 bits.
    #[error("{0:?} is not a number from 0 to 4294967295")]
    Number(String),
    /// A range, or the one number of a squashing rule, goes beyond the last number that a user or group can have.
    #[error("{count} ids from {base} on go beyond 4294967294, the last id there is")]
    Beyond {
        /// Where the range begins.
        base: u32,
        /// How long it is.
        count: u32,
    },
    /// Another rule for the same direction covers some of the same numbers.
    #[error("overlaps with {0:?}")]
    Overlap(String),
}

/// Reads rules one after another, and holds each against those before it.
pub(super) fn parse<'r>(rules: impl IntoIterator<Item = &'r str>) -> Result<IdMap, IdMapError> {
    let (mut to_host, mut to_guest) = (Draft::new(), Draft::new());
    for rule in rules {
        add(rule, &mut to_host, &mut to_guest).map_err(|problem| IdMapError { rule: rule.into(), problem })?;
    }
    Ok(IdMap { to_host: to_host.finish(), to_guest: to_guest.finish() })
}

fn add<'r>(
    rule: &'r str,
    to_host: &mut Draft<'r, Option<Target>>,
    to_guest: &mut Draft<'r, Target>,
) -> Result<(), IdProblem> {
    let (kind, base, target, count) = read(rule)?;
    // The range lies in numbers that exist, and so does what it becomes.
    let range = |base| Range::new(base, count);
    match kind {
        Kind::Guest => to_host.add(rule, range(base)?, Some(range(target)?.as_target())),
        Kind::Host => to_guest.add(rule, range(base)?, range(target)?.as_target()),
        Kind::SquashGuest => to_host.add(rule, range(base)?, Some(one(target)?)),
        Kind::SquashHost => to_guest.add(rule, range(base)?, one(target)?),
        Kind::ForbidGuest => to_host.add(rule, range(base)?, None),
        Kind::Map => {
            let (guest, host) = (range(base)?, range(target)?);
            to_host.add(rule, guest, Some(host.as_target()))?;
            to_guest.add(rule, host, guest.as_target())
        }
    }
}

/// A rule's type, source, target (0 where it has none) and count.
fn read(rule: &str) -> Result<(Kind, u32, u32, u32), IdProblem> {
    let is_separator = |c: char| !(c.is_alphanumeric() || c == '-' || c == '_');
    let end = rule.find(is_separator).unwrap_or(rule.len());
    let (name, rest) = rule.split_at(end);
    let lower = name.to_lowercase();
    let found = KINDS.iter().find(|(known, ..)| *known == lower);
    let &(name, kind, fields) = found.ok_or_else(|| IdProblem::Type(name.into()))?;

    let mut characters = rest.chars();
    let wrong_count = IdProblem::Fields { name, fields };
    let Some(separator) = characters.next() else { return Err(wrong_count) };
    let numbers: Vec<u32> = characters.as_str().split(separator).map(number).collect::<Result<_, _>>()?;
    match (kind, &*numbers) {
        (Kind::ForbidGuest, &[base, count]) => Ok((kind, base, 0, count)),
        (Kind::ForbidGuest, _) => Err(wrong_count),
        (_, &[base, target, count]) => Ok((kind, base, target, count)),
        _ => Err(wrong_count),
    }
}

fn number(text: &str) -> Result<u32, IdProblem> {
    text.parse().map_err(|_| IdProblem::Number(text.into()))
}

/// The one number that a range is squashed to. [`NO_ID`] would leave files with whatever owner they had.
fn one(id: u32) -> Result<Target, IdProblem> {
    if id == NO_ID { Err(IdProblem::Beyond { base: id, count: 1 }) } else { Ok(Target::One(id)) }
}

/// Numbers that exist: [`NO_ID`] is not among them.
#[derive(Clone, Copy)]
struct Range {
    base: u32,
    count: u32,
}

impl Range {
    fn new(base: u32, count: u32) -> Result<Self, IdProblem> {
        // The end is not part of the range, so it may be `NO_ID` itself.
        base.checked_add(count).map(|_| Self { base, count }).ok_or(IdProblem::Beyond { base, count })
    }

    const fn as_target(self) -> Target {
        Target::Range(self.base)
    }
}

/// A table that is being put together, which still knows where each range came from.
struct Draft<'r, T>(Vec<(Span<T>, &'r str)>);

impl<'r, T> Draft<'r, T> {
    const fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, rule: &'r str, range: Range, target: T) -> Result<(), IdProblem> {
        // Nothing is a range too, and overlaps with none.
        let Some(length) = range.count.checked_sub(1) else { return Ok(()) };
        let span = Span { first: range.base, last: range.base + length, target };
        let place = self.0.partition_point(|(other, _)| other.last < span.first);
        match self.0.get(place) {
            Some((next, origin)) if next.first <= span.last => Err(IdProblem::Overlap((*origin).into())),
            _ => {
                self.0.insert(place, (span, rule));
                Ok(())
            }
        }
    }

    fn finish(self) -> Table<T> {
        Table(self.0.into_iter().map(|(span, _)| span).collect())
    }
}
