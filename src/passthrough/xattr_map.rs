//! Names of extended attributes, as the guest knows them and as the host stores them.
//!
//! The rules are those of virtiofsd's `--xattrmap`: the first that matches a name decides, and what no rule matches is
//! denied and hidden. Behind the rules stands a guard for the attributes that the server keeps for itself. This module
//! maps names and nothing else: it touches no file and knows no values.

use std::{ffi::CStr, ops::Deref};

use fuse_abi::Errno;

use crate::protocol::XattrName;

mod rules;
#[cfg(test)]
mod tests;

use rules::{Action, Rule};
pub use rules::{RuleProblem, XattrMapError};

/// The longest name of an extended attribute, without its terminator.
const NAME_MAX: usize = 255;

/// Where a host that has no owners and modes of its own for the guest keeps them.
pub const OVERRIDE: &CStr = c"user.ferryfs.override";

/// Attributes that belong to the server: a guest can neither see, read, set nor remove them, by whatever name it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Internal(&'static [&'static CStr]);

impl Internal {
    /// Guards these names, spelled as the host stores them.
    #[must_use]
    pub const fn new(names: &'static [&'static CStr]) -> Self {
        Self(names)
    }

    /// Compares names without their terminators, and without regard to case, which network file systems fold.
    fn guards(self, host_name: &[u8]) -> bool {
        let host_name = host_name.strip_suffix(b"\0").unwrap_or(host_name);
        self.0.iter().any(|name| name.to_bytes().eq_ignore_ascii_case(host_name))
    }
}

impl Default for Internal {
    /// What this host's part of the server stores in attributes.
    fn default() -> Self {
        Self(if cfg!(target_os = "macos") { &[OVERRIDE] } else { &[] })
    }
}

/// How names of extended attributes translate between guest and host. The default passes every name as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XattrMap {
    /// `None` passes every name, which an empty list of rules would not.
    rules: Option<Box<[Rule]>>,
    internal: Internal,
}

impl XattrMap {
    /// Understands rules in the syntax of `--xattrmap`, such as `:map::user.virtiofs.:`.
    ///
    /// # Errors
    /// Says in one line which rule is wrong, where, and why.
    pub fn parse(text: &str) -> Result<Self, XattrMapError> {
        Ok(Self { rules: Some(rules::parse(text)?), internal: Internal::default() })
    }

    /// The same map with other attributes guarded.
    #[must_use]
    pub fn with_internal(self, internal: Internal) -> Self {
        Self { internal, ..self }
    }

    /// Whether no rules were given, so that every name that is not guarded is passed as it is.
    #[must_use]
    pub const fn is_identity(&self) -> bool {
        self.rules.is_none()
    }

    /// Whether every name meets a rule in both directions. Where not, a final `:bad:all:::` is understood.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let Some(rules) = &self.rules else { return true };
        rules.iter().any(|rule| rule.takes_guest_name(b"")) && rules.iter().any(|rule| rule.takes_host_name(b""))
    }

    /// The host's name of an attribute that the guest wants to read, set or remove.
    ///
    /// # Errors
    /// `EPERM` for what is denied or guarded, `EOPNOTSUPP` for what is declared unsupported, `ERANGE` where the host's
    /// name would pass 255 bytes.
    pub fn to_host<'n>(&self, name: XattrName<'n>) -> Result<HostName<'n>, Errno> {
        let host_name = match &self.rules {
            None => HostName(Spelling::Guests(name.as_c_str())),
            Some(rules) => apply(rules, name)?,
        };
        if self.internal.guards(host_name.to_bytes()) { Err(Errno::EPERM) } else { Ok(host_name) }
    }

    /// The guest's name of an attribute that the host listed, or `None` if the guest is not to see it.
    #[must_use]
    pub fn to_guest<'n>(&self, host_name: &'n [u8]) -> Option<&'n [u8]> {
        if self.internal.guards(host_name) {
            return None;
        }
        let Some(rules) = &self.rules else { return Some(host_name) };
        let rule = rules.iter().find(|rule| rule.takes_host_name(host_name))?;
        match rule.action {
            Action::Pass => Some(host_name),
            // A name that is all prefix leaves nothing that a list could carry.
            Action::Prefix => host_name.strip_prefix(&*rule.prepend).filter(|name| !name.is_empty()),
            Action::Deny | Action::Unsupported => None,
        }
    }

    /// The guest's names in a list as the host's `listxattr` fills it, each ended by a NUL.
    pub fn list_to_guest<'n>(&self, host_list: &'n [u8]) -> impl Iterator<Item = &'n [u8]> {
        let names = host_list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names.filter_map(|name| self.to_guest(name))
    }

    /// The name under which an attribute is stored, if it is stored under another.
    ///
    /// The host's kernel drops `security.capability` from a file that changes; stored elsewhere, the server must.
    #[must_use]
    pub fn remapped<'n>(&self, name: &'n CStr) -> Option<HostName<'n>> {
        let host_name = self.to_host(XattrName::new(name).ok()?).ok()?;
        (*host_name != *name).then_some(host_name)
    }

    /// Whether an attribute is stored under another name.
    #[must_use]
    pub fn remaps(&self, name: &CStr) -> bool {
        self.remapped(name).is_some()
    }
}

/// Applies the first rule for a guest's name.
fn apply<'n>(rules: &[Rule], name: XattrName<'n>) -> Result<HostName<'n>, Errno> {
    let Some(rule) = rules.iter().find(|rule| rule.takes_guest_name(name.as_bytes())) else {
        return Err(Errno::EPERM);
    };
    match rule.action {
        Action::Pass => Ok(HostName(Spelling::Guests(name.as_c_str()))),
        Action::Prefix => HostName::prefixed(&rule.prepend, name),
        Action::Deny => Err(Errno::EPERM),
        Action::Unsupported => Err(Errno::EOPNOTSUPP),
    }
}

/// An attribute's name as the host stores it; a [`CStr`] that needs no allocation.
#[derive(Clone, Debug)]
pub struct HostName<'n>(Spelling<'n>);

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one call, where a box would be an allocation")]
enum Spelling<'n> {
    Guests(&'n CStr),
    /// Ended by at least one zero.
    Prefixed([u8; NAME_MAX + 1]),
}

impl<'n> HostName<'n> {
    fn prefixed(prefix: &[u8], name: XattrName<'n>) -> Result<Self, Errno> {
        if prefix.is_empty() {
            return Ok(Self(Spelling::Guests(name.as_c_str())));
        }
        let mut bytes = [0; NAME_MAX + 1];
        // The terminator is copied too, so a name that fits leaves it in place.
        let with_nul = name.as_c_str().to_bytes_with_nul();
        let (head, rest) = bytes.split_at_mut_checked(prefix.len()).ok_or(Errno::ERANGE)?;
        let tail = rest.get_mut(..with_nul.len()).ok_or(Errno::ERANGE)?;
        head.copy_from_slice(prefix);
        tail.copy_from_slice(with_nul);
        Ok(Self(Spelling::Prefixed(bytes)))
    }
}

impl Deref for HostName<'_> {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        match &self.0 {
            Spelling::Guests(name) => name,
            Spelling::Prefixed(bytes) => CStr::from_bytes_until_nul(bytes).unwrap_or_default(),
        }
    }
}
