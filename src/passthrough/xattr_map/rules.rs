//! The rules of a map and their syntax: `:type:scope:key:prepend:` with a delimiter of the user's choice.

/// What a rule does with a name that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Puts `prepend` before a guest's name, takes it off a host's.
    Prefix,
    /// Leaves the name as it is.
    Pass,
    /// Answers the guest `EPERM`, hides the host's.
    Deny,
    /// Answers the guest `EOPNOTSUPP`, hides the host's.
    Unsupported,
}

/// Whose names a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Client,
    Server,
    All,
}

/// What a rule's first field can say.
#[derive(Clone, Copy)]
enum Kind {
    Single(Action),
    /// The shorthand that stands for a whole set of rules.
    Map,
}

const KINDS: [(&str, Kind); 5] = [
    ("prefix", Kind::Single(Action::Prefix)),
    ("ok", Kind::Single(Action::Pass)),
    ("bad", Kind::Single(Action::Deny)),
    ("unsupported", Kind::Single(Action::Unsupported)),
    ("map", Kind::Map),
];
const SCOPES: [(&str, Scope); 3] = [("client", Scope::Client), ("server", Scope::Server), ("all", Scope::All)];

/// One step of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: Action,
    scope: Scope,
    /// What a guest's name begins with.
    key: Box<[u8]>,
    /// What a host's name begins with.
    pub(super) prepend: Box<[u8]>,
}

impl Rule {
    fn new(action: Action, scope: Scope, key: &str, prepend: &str) -> Self {
        Self { action, scope, key: key.as_bytes().into(), prepend: prepend.as_bytes().into() }
    }

    pub(super) fn takes_guest_name(&self, name: &[u8]) -> bool {
        self.scope != Scope::Server && name.starts_with(&self.key)
    }

    pub(super) fn takes_host_name(&self, name: &[u8]) -> bool {
        self.scope != Scope::Client && name.starts_with(&self.prepend)
    }
}

/// Why a text is not a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XattrMapError {
    /// It has no rules at all.
    #[error("xattr map: there is no rule in it")]
    Empty,
    /// One of its rules is wrong.
    #[error("xattr map: rule {rule}, character {position}: {problem}")]
    Rule {
        /// Which rule, counted from 1.
        rule: usize,
        /// At which character of the text, counted from 1.
        position: usize,
        /// What is wrong there.
        problem: RuleProblem,
    },
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleProblem {
    /// The first field names no type.
    #[error("unknown type {0:?}, expected prefix, ok, bad, unsupported or map")]
    Type(String),
    /// The second field names no scope.
    #[error("unknown scope {0:?}, expected client, server or all")]
    Scope(String),
    /// The text ends within a field.
    #[error("the field {field:?} is not closed by {delimiter:?}")]
    Unclosed {
        /// The field's name in the documentation.
        field: &'static str,
        /// What should close it.
        delimiter: char,
    },
    /// No attribute's name can hold a NUL.
    #[error("a name cannot hold a NUL")]
    Nul,
    /// Something follows a rule of type `map`.
    #[error("a rule of type map must be the last one")]
    AfterMap,
}

/// The rules of a text, the shorthand written out.
pub(super) fn parse(text: &str) -> Result<Box<[Rule]>, XattrMapError> {
    let mut rules = Vec::new();
    let mut reader = Reader { text, rest: text, delimiter: '\0', rule: 0 };
    while reader.next_rule() {
        let start = reader.rest;
        let kind = reader.choice("type", &KINDS, RuleProblem::Type)?;
        match kind {
            Kind::Single(action) => {
                let scope = reader.choice("scope", &SCOPES, RuleProblem::Scope)?;
                rules.push(Rule::new(action, scope, reader.name("key")?, reader.name("prepend")?));
            }
            Kind::Map => {
                write_out(reader.name("key")?, reader.name("prepend")?, &mut rules);
                if !reader.rest.trim_start().is_empty() {
                    return Err(reader.error(start, RuleProblem::AfterMap));
                }
            }
        }
    }
    if rules.is_empty() { Err(XattrMapError::Empty) } else { Ok(rules.into()) }
}

/// What `:map:key:prepend:` stands for.
fn write_out(key: &str, prepend: &str, rules: &mut Vec<Rule>) {
    rules.push(Rule::new(Action::Prefix, Scope::All, key, prepend));
    if key.is_empty() {
        rules.push(Rule::new(Action::Deny, Scope::All, "", ""));
    } else {
        // Crosswise: the guest may not name the place that others are moved to, nor see what the host has at their own.
        rules.push(Rule::new(Action::Deny, Scope::All, prepend, key));
        rules.push(Rule::new(Action::Pass, Scope::All, "", ""));
    }
}

/// Takes a text apart, field by field.
struct Reader<'t> {
    text: &'t str,
    rest: &'t str,
    delimiter: char,
    rule: usize,
}

impl<'t> Reader<'t> {
    /// Goes to the next rule, whose first character that is not white space becomes its delimiter.
    fn next_rule(&mut self) -> bool {
        let mut characters = self.rest.trim_start().chars();
        let Some(delimiter) = characters.next() else { return false };
        self.rest = characters.as_str();
        self.delimiter = delimiter;
        self.rule += 1;
        true
    }

    fn field(&mut self, field: &'static str) -> Result<&'t str, XattrMapError> {
        let Some((value, rest)) = self.rest.split_once(self.delimiter) else {
            return Err(self.error(self.rest, RuleProblem::Unclosed { field, delimiter: self.delimiter }));
        };
        self.rest = rest;
        Ok(value)
    }

    fn choice<T: Copy>(
        &mut self,
        field: &'static str,
        choices: &[(&str, T)],
        problem: fn(String) -> RuleProblem,
    ) -> Result<T, XattrMapError> {
        let start = self.rest;
        let value = self.field(field)?;
        let found = choices.iter().find(|(name, _)| *name == value);
        found.map(|(_, choice)| *choice).ok_or_else(|| self.error(start, problem(value.into())))
    }

    fn name(&mut self, field: &'static str) -> Result<&'t str, XattrMapError> {
        let start = self.rest;
        let value = self.field(field)?;
        if value.contains('\0') { Err(self.error(start, RuleProblem::Nul)) } else { Ok(value) }
    }

    /// An error at the place where `rest`, an end of the text, begins.
    fn error(&self, rest: &str, problem: RuleProblem) -> XattrMapError {
        let position = self.text.chars().count() - rest.chars().count() + 1;
        XattrMapError::Rule { rule: self.rule, position, problem }
    }
}
