//! Extended attributes, under the names that the map gives them on the host.

use std::{ffi::CStr, os::fd::AsFd};

use fuse_abi::Errno;

use super::{Passthrough, inodes::Inode};
use crate::{
    host,
    protocol::{Body, Context, NodeId, Result, XattrName},
};

/// The longest value, and the longest list, that Linux passes around.
const VALUE_MAX: usize = 65536;
/// Values up to this length need no memory from the heap.
const SMALL: usize = 256;
const CAPABILITY: &CStr = c"security.capability";

impl Passthrough {
    fn host_name<'n>(&'n self, name: XattrName<'n>) -> host::Result<super::xattr_map::HostName<'n>> {
        if !self.serves_xattrs {
            return Err(Errno::ENOSYS);
        }
        if self.is_hidden_acl(name.as_bytes()) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.config.xattr_map.to_host(name)
    }

    /// A client that does not enforce access control lists must not see them.
    fn is_hidden_acl(&self, name: &[u8]) -> bool {
        !self.config.posix_acl.is_wanted() && matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
    }

    pub(super) fn get_attribute(
        &self,
        cx: &Context,
        node: NodeId,
        name: XattrName<'_>,
        size: u32,
        body: &mut Body<'_>,
    ) -> Result<u32> {
        let name = self.host_name(name)?;
        let inode = self.inode(cx, node)?;
        let fd = self.fd(&inode)?;
        self.as_server()?;
        let room = (size as usize).min(VALUE_MAX);
        let read = |buffer: &mut [u8]| host::get_xattr(&self.fds, fd.as_fd(), &name, buffer);
        let (mut small, mut large) = ([0; SMALL], Vec::new());
        let buffer = if room <= SMALL {
            small.get_mut(..room).unwrap_or_default()
        } else {
            large.resize(room, 0);
            large.as_mut_slice()
        };
        let len = read(buffer)?;
        if size != 0 {
            deliver(body, buffer.get(..len).ok_or(Errno::ERANGE)?)?;
        }
        Ok(u32::try_from(len).unwrap_or(u32::MAX))
    }

    pub(super) fn list_attributes(&self, cx: &Context, node: NodeId, size: u32, body: &mut Body<'_>) -> Result<u32> {
        if !self.serves_xattrs {
            return Err(Errno::ENOSYS.into());
        }
        let inode = self.inode(cx, node)?;
        let fd = self.fd(&inode)?;
        self.as_server()?;
        let list = self.host_list(fd.as_fd())?;
        let shown = self.config.xattr_map.list_to_guest(&list).filter(|name| !self.is_hidden_acl(name));
        let mut len = 0_usize;
        let mut names = Vec::with_capacity(list.len());
        for name in shown {
            len = len.saturating_add(name.len()).saturating_add(1);
            names.extend_from_slice(name);
            names.push(0);
        }
        if size != 0 {
            if len > size as usize {
                return Err(Errno::ERANGE.into());
            }
            deliver(body, &names)?;
        }
        Ok(u32::try_from(len).unwrap_or(u32::MAX))
    }

    /// All names on the host, however many were added while asking.
    fn host_list(&self, object: std::os::fd::BorrowedFd<'_>) -> host::Result<Vec<u8>> {
        let mut list = vec![0; host::list_xattrs(&self.fds, object, &mut [])?];
        if list.is_empty() {
            return Ok(list);
        }
        let len = match host::list_xattrs(&self.fds, object, &mut list) {
            Err(Errno::ERANGE) => {
                list.resize(VALUE_MAX, 0);
                host::list_xattrs(&self.fds, object, &mut list)?
            }
            done => done?,
        };
        list.truncate(len);
        Ok(list)
    }

    pub(super) fn set_attribute(
        &self,
        cx: &Context,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> Result<()> {
        let name = self.host_name(name)?;
        let inode = self.inode(cx, node)?;
        let fd = self.fd(&inode)?;
        if kill_sgid {
            // In the caller's group, not in the server's: a member's list would leave the bit where it is.
            let gid = self.config.gid_map.to_host(cx.gid)?;
            self.identities.act_as(&host::Actor { gid, keeps_suid: false, ..host::Actor::SERVER })?;
        } else {
            self.as_server()?;
        }
        host::set_xattr(&self.fds, fd.as_fd(), &name, value, flags)?;
        inode.changed_status();
        Ok(())
    }

    pub(super) fn remove_attribute(&self, cx: &Context, node: NodeId, name: XattrName<'_>) -> Result<()> {
        let name = self.host_name(name)?;
        let inode = self.inode(cx, node)?;
        let fd = self.fd(&inode)?;
        self.as_server()?;
        host::remove_xattr(&self.fds, fd.as_fd(), &name)?;
        inode.changed_status();
        Ok(())
    }

    /// Where file capabilities are kept under another name the host does not drop them when a file changes.
    pub(super) fn drop_mapped_capability(&self, inode: &Inode) -> host::Result<()> {
        let Some(name) = self.config.xattr_map.remapped(CAPABILITY).filter(|_| self.serves_xattrs) else {
            return Ok(());
        };
        let fd = self.fd(inode)?;
        self.as_server()?;
        match host::remove_xattr(&self.fds, fd.as_fd(), &name) {
            Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

fn deliver(body: &mut Body<'_>, bytes: &[u8]) -> Result<()> {
    if body.put(bytes) { Ok(()) } else { Err(Errno::ERANGE.into()) }
}
