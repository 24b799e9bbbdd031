//! What may follow the names of a request that creates: a security label and the caller's supplementary group.
//!
//! The kernel appends it right after the last name, without alignment: records that begin with their size (a multiple
//! of eight that counts the header too) and a type. Security labels have no type of their own: what stands in its place
//! is how many labels follow, and none is a record of eight bytes. From 7.38 the request's header counts the whole.

use fuse_abi::{EXT_GROUPS, Errno, ExtHeader, InitFlags, MAX_NR_SECCTX, Secctx, SuppGroups};
use std::ffi::CStr;
use zerocopy::FromBytes;

use super::request::{Cursor, Take};
use super::{Creation, SecurityContext, XattrName};

/// What a request that creates was given beside its arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions<'r> {
    /// The one supplementary group of the caller that matters: the directory's.
    pub group: Option<u32>,
    /// A label to give at birth.
    pub security: Option<SecurityContext<'r>>,
}

impl<'r> Extensions<'r> {
    /// Adds what the request's arguments say.
    #[must_use]
    pub const fn creation(self, mode: u32, umask: u32) -> Creation<'r> {
        Creation { mode, umask, group: self.group, security: self.security }
    }
}

impl<'r> Take<'r> for Extensions<'r> {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let agreed = cursor.terms.agreed.flags;
        let mut area = cursor.extensions();
        if area.is_empty() && agreed.contains(InitFlags::SECURITY_CTX) {
            // 7.36 and 7.37 have labels and no count in the header.
            area = cursor.rest();
        }
        let mut found = Self::default();
        let mut labelled = false;
        while !area.is_empty() {
            let (header, _) = ExtHeader::read_from_prefix(area).map_err(|_| Errno::EINVAL)?;
            let size = usize::try_from(header.size).map_err(|_| Errno::EINVAL)?;
            if size % 8 != 0 {
                return Err(Errno::EINVAL);
            }
            let (record, rest) = area.split_at_checked(size).ok_or(Errno::EINVAL)?;
            let body = record.get(size_of::<ExtHeader>()..).ok_or(Errno::EINVAL)?;
            match header.r#type {
                EXT_GROUPS if agreed.contains(InitFlags::CREATE_SUPP_GROUP) && found.group.is_none() => {
                    found.group = Some(group(body)?);
                }
                count @ ..=MAX_NR_SECCTX if agreed.contains(InitFlags::SECURITY_CTX) && !labelled => {
                    found.security = label(count, body)?;
                    labelled = true;
                }
                // Unknown, not agreed on, or there twice: what it asks for cannot be passed over in silence.
                _ => return Err(Errno::EINVAL),
            }
            area = rest;
        }
        Ok(found)
    }
}

/// Linux sends the group of the parent directory and no other.
fn group(body: &[u8]) -> Result<u32, Errno> {
    let (header, groups) = SuppGroups::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    if header.nr_groups != 1 {
        return Err(Errno::EINVAL);
    }
    u32::read_from_prefix(groups).map(|(group, _)| group).map_err(|_| Errno::EINVAL)
}

fn label(count: u32, body: &[u8]) -> Result<Option<SecurityContext<'_>>, Errno> {
    match count {
        0 if body.is_empty() => return Ok(None),
        0 => return Err(Errno::EINVAL),
        1 => {}
        // Two labels cannot be given in one step, and no kernel sends two.
        _ => return Err(Errno::EOPNOTSUPP),
    }
    let (header, rest) = Secctx::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    let name = CStr::from_bytes_until_nul(rest).map_err(|_| Errno::EINVAL)?;
    XattrName::new(name).map_err(|_| Errno::EINVAL)?;
    let value = rest.get(name.to_bytes_with_nul().len()..).ok_or(Errno::EINVAL)?;
    let size = usize::try_from(header.size).map_err(|_| Errno::EINVAL)?;
    let (value, padding) = value.split_at_checked(size).ok_or(Errno::EINVAL)?;
    if padding.len() >= 8 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(SecurityContext { name, value }))
}
