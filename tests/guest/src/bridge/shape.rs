//! What a guest's virtio-fs driver knows when it sends a request, and /dev/fuse does not say: which queue it goes to and
//! how large the buffers for its reply are.

use fuse_abi::{
    AttrOut, BmapOut, CopyFileRangeOut, EntryOut, GetxattrIn, GetxattrOut, InitOut, IoctlIn, IoctlOut, Kstatfs, LkOut,
    LseekOut, Opcode, OpenOut, PollOut, ReadIn, StatxOut, WriteOut,
};
use zerocopy::FromBytes;

/// Bytes of arguments that [`route`] may look at.
pub const ARGUMENTS: usize = 40;

/// Room for the reply to an operation this crate does not know.
const UNKNOWN: u32 = 4096;
/// Room for the target of a symbolic link, as the kernel has it.
const TARGET: u32 = 4095;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To a request queue, with room for so many bytes after the reply's header.
    Request(u32),
    /// To hiprio, without a reply.
    Forget,
    /// To hiprio, as one FORGET an entry: virtio-fs sends no BATCH_FORGET.
    BatchForget,
    /// Nowhere: virtio-fs does not send it.
    Drop,
}

/// Where a request goes, by its opcode and the first bytes after its header.
#[must_use]
pub fn route(opcode: u32, arguments: &[u8]) -> Route {
    use Opcode as Op;
    let Ok(opcode) = Opcode::try_from(opcode) else { return Route::Request(UNKNOWN) };
    let room = match opcode {
        Op::Forget => return Route::Forget,
        Op::BatchForget => return Route::BatchForget,
        Op::Interrupt | Op::NotifyReply => return Route::Drop,
        Op::Lookup | Op::Symlink | Op::Mknod | Op::Mkdir | Op::Link => size_of::<EntryOut>(),
        Op::Create | Op::Tmpfile => size_of::<EntryOut>() + size_of::<OpenOut>(),
        Op::Getattr | Op::Setattr => size_of::<AttrOut>(),
        Op::Statx => size_of::<StatxOut>(),
        Op::Open | Op::Opendir => size_of::<OpenOut>(),
        Op::Write | Op::CopyFileRange => size_of::<WriteOut>(),
        Op::CopyFileRange64 => size_of::<CopyFileRangeOut>(),
        Op::Statfs => size_of::<Kstatfs>(),
        Op::Init => size_of::<InitOut>(),
        Op::Getlk => size_of::<LkOut>(),
        Op::Bmap => size_of::<BmapOut>(),
        Op::Poll => size_of::<PollOut>(),
        Op::Lseek => size_of::<LseekOut>(),
        Op::Readlink => return Route::Request(TARGET),
        Op::Read | Op::Readdir | Op::Readdirplus => return Route::Request(wanted(arguments, |a: ReadIn| a.size)),
        Op::Getxattr | Op::Listxattr => match wanted(arguments, |a: GetxattrIn| a.size) {
            0 => size_of::<GetxattrOut>(),
            size => return Route::Request(size),
        },
        Op::Ioctl => {
            let data = wanted(arguments, |a: IoctlIn| a.out_size);
            return Route::Request((size_of::<IoctlOut>() as u32).saturating_add(data));
        }
        _ => 0,
    };
    Route::Request(room as u32)
}

fn wanted<T: FromBytes>(arguments: &[u8], size: impl Fn(T) -> u32) -> u32 {
    T::read_from_prefix(arguments).map_or(0, |(arguments, _)| size(arguments))
}
