//! [`FileSystem`] for [`Passthrough`]: each operation leads to its own module.

use fuse_abi::{AttrOut, EntryOut, Errno, Kstatfs, OpenOut, StatxOut};

use super::Passthrough;
use crate::protocol::{
    Agreement, AttributeChanges, Body, Context, CopyRange, Creation, DirectoryReply, Ear, FileSystem, HandleId, Ioctl,
    IoctlData, LookupName, Name, NodeId, OpenFlags, Payload, ReadArgs, ReadDirArgs, RenameMode, Result, SymlinkTarget,
    Turns, Whence, Wishes, WriteArgs, XattrName,
};

impl FileSystem for Passthrough {
    fn wishes(&self) -> Wishes {
        self.wishes_of_config()
    }

    fn begin(&self, agreed: &Agreement) {
        log::debug!("a session begins, version 7.{}, {:?}", agreed.minor, agreed.flags);
        if let Some(news) = &self.news {
            news.begin(agreed.minor);
        }
    }

    fn end(&self) {
        self.release_everything();
    }

    fn begin_thread(&self) {
        if let Err(errno) = self.as_server() {
            log::error!("a thread cannot take up its credentials: {errno}");
        }
    }

    fn speak(&self, turns: &Turns, send: Option<Ear<'_>>) {
        self.tell_news(turns, send);
    }

    fn watch(&self) {
        self.watch_host();
    }

    fn unmute(&self) {
        if let Some(news) = &self.news {
            news.unmute();
        }
    }

    fn is_mute(&self) -> bool {
        self.news.as_ref().is_none_or(super::news::News::is_mute)
    }

    fn unheard(&self) {
        if let Some(news) = &self.news {
            news.unheard();
        }
    }

    fn mute(&self) {
        if let Some(news) = &self.news {
            news.mute();
        }
    }

    fn lookup(&self, cx: &Context, parent: NodeId, name: LookupName<'_>) -> Result<EntryOut> {
        self.lookup_entry(cx, parent, name)
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.forget_inode(node, count);
    }

    fn getattr(&self, cx: &Context, node: NodeId, handle: Option<HandleId>) -> Result<AttrOut> {
        let (inode, found) = self.asked(cx, node, handle)?;
        self.note_question(cx, &inode);
        Ok(self.attr_out(cx, &inode, &found))
    }

    fn statx(&self, cx: &Context, node: NodeId, handle: Option<HandleId>, _: u32, _: u32) -> Result<StatxOut> {
        if self.config.no_statx {
            return Err(Errno::ENOSYS.into());
        }
        let (inode, found) = self.asked(cx, node, handle)?;
        self.note_question(cx, &inode);
        Ok(self.statx_out(cx, &inode, &found))
    }

    fn setattr(&self, cx: &Context, node: NodeId, changes: &AttributeChanges) -> Result<AttrOut> {
        self.change_attributes(cx, node, changes)
    }

    fn access(&self, cx: &Context, node: NodeId, mask: u32) -> Result<()> {
        self.check_access(cx, node, mask)
    }

    fn readlink(&self, cx: &Context, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        self.link_target(cx, node, body)
    }

    fn symlink(
        &self,
        cx: &Context,
        parent: NodeId,
        name: Name<'_>,
        target: SymlinkTarget<'_>,
        new: &Creation<'_>,
    ) -> Result<EntryOut> {
        self.make_symlink(cx, parent, name, target, new)
    }

    fn mknod(&self, cx: &Context, parent: NodeId, name: Name<'_>, rdev: u32, new: &Creation<'_>) -> Result<EntryOut> {
        self.make_node(cx, parent, name, rdev, new)
    }

    fn mkdir(&self, cx: &Context, parent: NodeId, name: Name<'_>, new: &Creation<'_>) -> Result<EntryOut> {
        self.make_directory(cx, parent, name, new)
    }

    fn unlink(&self, cx: &Context, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(cx, parent, name, false)
    }

    fn rmdir(&self, cx: &Context, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(cx, parent, name, true)
    }

    fn rename(&self, cx: &Context, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>), mode: RenameMode) -> Result<()> {
        self.move_name(cx, from, to, mode)
    }

    fn link(&self, cx: &Context, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<EntryOut> {
        self.make_link(cx, node, parent, name)
    }

    fn open(&self, cx: &Context, node: NodeId, flags: OpenFlags, kill_suidgid: bool) -> Result<OpenOut> {
        self.open_file(cx, node, flags, kill_suidgid)
    }

    fn create(
        &self,
        cx: &Context,
        parent: NodeId,
        name: Name<'_>,
        flags: OpenFlags,
        kill_suidgid: bool,
        new: &Creation<'_>,
    ) -> Result<(EntryOut, OpenOut)> {
        self.create_file(cx, parent, name, flags, kill_suidgid, new)
    }

    fn tmpfile(
        &self,
        cx: &Context,
        parent: NodeId,
        flags: OpenFlags,
        new: &Creation<'_>,
    ) -> Result<(EntryOut, OpenOut)> {
        self.create_unnamed(cx, parent, flags, new)
    }

    fn read(&self, cx: &Context, node: NodeId, args: &ReadArgs, body: &mut Body<'_>) -> Result<()> {
        self.read_file(cx, node, args, body)
    }

    fn write(&self, cx: &Context, node: NodeId, args: &WriteArgs, payload: Payload<'_>) -> Result<u32> {
        self.write_file(cx, node, args, payload)
    }

    fn flush(&self, cx: &Context, node: NodeId, handle: HandleId, _: u64) -> Result<()> {
        self.flush_file(cx, node, handle)
    }

    fn release(&self, cx: &Context, node: NodeId, handle: HandleId, _: Option<u64>) -> Result<()> {
        self.release_file(cx, node, handle)
    }

    fn fsync(&self, cx: &Context, node: NodeId, handle: HandleId, data_only: bool) -> Result<()> {
        self.sync_file(cx, node, handle, data_only)
    }

    fn fallocate(&self, cx: &Context, node: NodeId, handle: HandleId, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.allocate(cx, node, handle, mode, (offset, len))
    }

    fn lseek(&self, cx: &Context, node: NodeId, handle: HandleId, offset: u64, whence: Whence) -> Result<u64> {
        self.seek_file(cx, node, handle, offset, whence)
    }

    fn copy_file_range(&self, cx: &Context, range: &CopyRange) -> Result<u64> {
        self.copy_range(cx, range)
    }

    fn ioctl(&self, cx: &Context, node: NodeId, handle: HandleId, request: &Ioctl) -> Result<IoctlData> {
        self.inode_ioctl(cx, node, handle, request)
    }

    fn opendir(&self, cx: &Context, node: NodeId, _: OpenFlags) -> Result<OpenOut> {
        self.open_directory(cx, node)
    }

    fn readdir(
        &self,
        cx: &Context,
        node: NodeId,
        args: &ReadDirArgs,
        reply: &mut DirectoryReply<'_, '_>,
    ) -> Result<()> {
        self.list(cx, node, args, reply)
    }

    fn readdirplus(
        &self,
        cx: &Context,
        node: NodeId,
        args: &ReadDirArgs,
        reply: &mut DirectoryReply<'_, '_>,
    ) -> Result<()> {
        self.list_plus(cx, node, args, reply)
    }

    fn releasedir(&self, cx: &Context, node: NodeId, handle: HandleId) -> Result<()> {
        self.release_directory(cx, node, handle)
    }

    fn fsyncdir(&self, cx: &Context, node: NodeId, handle: HandleId, data_only: bool) -> Result<()> {
        self.sync_directory(cx, node, handle, data_only)
    }

    fn statfs(&self, cx: &Context, node: NodeId) -> Result<Kstatfs> {
        self.space(cx, node)
    }

    fn syncfs(&self, cx: &Context, node: NodeId) -> Result<()> {
        self.sync_all(cx, node)
    }

    fn getxattr(&self, cx: &Context, node: NodeId, name: XattrName<'_>, size: u32, body: &mut Body<'_>) -> Result<u32> {
        self.get_attribute(cx, node, name, size, body)
    }

    fn listxattr(&self, cx: &Context, node: NodeId, size: u32, body: &mut Body<'_>) -> Result<u32> {
        self.list_attributes(cx, node, size, body)
    }

    fn setxattr(
        &self,
        cx: &Context,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> Result<()> {
        self.set_attribute(cx, node, name, value, flags, kill_sgid)
    }

    fn removexattr(&self, cx: &Context, node: NodeId, name: XattrName<'_>) -> Result<()> {
        self.remove_attribute(cx, node, name)
    }
}
