//! The file system mounted through this kernel's own `/dev/fuse`: for conformance tests and for trying things out.
//!
//! Each thread reads whole requests into a buffer of its own and serves them one after the other, waiting where it must.

use std::{
    ffi::CStr,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags};
use vm_memory::VolatileSlice;

use crate::protocol::{FileSystem, Payload, Sent, Served, Server, Turn};

/// The largest request or reply: data of 1 MiB with what stands before it, rounded up to a page.
const BUFFER: usize = (1 << 20) + 4096;
const FUSE_DEV_IOC_CLONE: libc::c_ulong = 0x8004_e500;

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    device: File,
    mountpoint: PathBuf,
}

impl Mount {
    /// Mounts at `mountpoint`; `source` is what the list of mounts shows. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// The system's.
    pub fn new(source: &Path, mountpoint: &Path, read_only: bool) -> io::Result<Self> {
        let mountpoint = mountpoint.canonicalize()?;
        let device = open_device()?;
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions\0");
        let options = CStr::from_bytes_with_nul(options.as_bytes()).map_err(io::Error::other)?;
        let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        rustix::mount::mount(source, &mountpoint, c"fuse.ferryfs", flags, options)?;
        Ok(Self { device, mountpoint })
    }

    /// Serves on `threads` threads until the file system is unmounted, by [`unmount`](Self::unmount) or by anybody.
    ///
    /// # Errors
    /// When a thread or its descriptor cannot be had.
    pub fn serve<F: FileSystem>(&self, server: &Server<F>, threads: usize) -> io::Result<()> {
        let devices: Vec<File> = (1..threads).map(|_| self.clone_device()).collect::<io::Result<_>>()?;
        let fs = server.file_system();
        fs.unmute();
        std::thread::scope(|scope| {
            // Dropped before the threads are waited for.
            let _mute = Mute(fs);
            std::thread::Builder::new().name("watcher".into()).spawn_scoped(scope, || fs.watch())?;
            std::thread::Builder::new().name("notifier".into()).spawn_scoped(scope, || {
                fs.begin_thread();
                server.speak(Some(&mut |message| send(&self.device, message)));
            })?;
            self.serve_all(server, &devices)
        })
    }

    fn serve_all<F: FileSystem>(&self, server: &Server<F>, devices: &[File]) -> io::Result<()> {
        std::thread::scope(|scope| {
            for device in devices {
                std::thread::Builder::new().name("fuse".into()).spawn_scoped(scope, || serve_one(device, server))?;
            }
            serve_one(&self.device, server);
            Ok(())
        })
    }

    /// Takes the mount away; files that are still open keep it alive until they are closed.
    ///
    /// # Errors
    /// The system's.
    pub fn unmount(&self) -> io::Result<()> {
        Ok(rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH)?)
    }

    /// One more descriptor of the same connection, so that threads do not share a queue in the kernel.
    fn clone_device(&self) -> io::Result<File> {
        let device = open_device()?;
        let connection = self.device.as_raw_fd() as u32;
        // SAFETY: the call reads one u32, which outlives it.
        match unsafe { libc::ioctl(device.as_raw_fd(), FUSE_DEV_IOC_CLONE, &raw const connection) } {
            0 => Ok(device),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Gone already when somebody else unmounted it, which is how serving ends.
        let _ = self.unmount();
    }
}

fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse")
}

/// Ends what a file system says unasked when it is dropped, however serving ended.
struct Mute<'f, F: FileSystem>(&'f F);

impl<F: FileSystem> Drop for Mute<'_, F> {
    fn drop(&mut self) {
        self.0.mute();
    }
}

/// Tells the kernel what it did not ask for.
fn send(mut device: &File, message: &[u8]) -> Sent {
    if message.is_empty() {
        return Sent::Heard;
    }
    let Err(error) = device.write(message) else { return Sent::Heard };
    match error.raw_os_error() {
        // It does not hold what this is about, or is about to take it in.
        Some(libc::ENOENT | libc::ENOTDIR) => Sent::Unsure,
        Some(libc::ENODEV | libc::EPERM | libc::ENOTCONN) => Sent::Gone,
        // It keeps what is in use.
        Some(libc::EBUSY | libc::ENOTEMPTY) => Sent::Heard,
        _ => {
            log::debug!("the kernel refused a notification: {error}");
            Sent::Heard
        }
    }
}

/// Serves what one descriptor gives until the connection ends.
fn serve_one<F: FileSystem>(mut device: &File, server: &Server<F>) {
    let (mut request, mut reply) = (vec![0; BUFFER], vec![0; BUFFER]);
    let turn = server.turns().enlist();
    loop {
        let len = match device.read(&mut request) {
            Ok(len) => len,
            Err(error) => match error.raw_os_error() {
                // The request went away while it was being read.
                Some(libc::ENOENT | libc::EINTR | libc::EAGAIN) => continue,
                Some(libc::ENODEV) => return,
                _ => return log::error!("cannot read from /dev/fuse: {error}"),
            },
        };
        let request = request.get_mut(..len).unwrap_or_default();
        turn.begin();
        if let Some(answer) = answer(server, &turn, request, &mut reply) {
            match device.write(answer) {
                Ok(_) => {}
                // The caller was interrupted and no longer waits.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => log::warn!("the kernel refused a reply: {error}"),
            }
        }
        turn.end();
    }
}

fn answer<'b, F: FileSystem>(
    server: &Server<F>,
    turn: &Turn<'_>,
    request: &mut [u8],
    reply: &'b mut [u8],
) -> Option<&'b [u8]> {
    let head_len = server.head_len(request, request.len()).min(request.len());
    let (head, data) = request.split_at_mut(head_len);
    let data = [VolatileSlice::from(data)];
    let mut serve =
        |may_wait| server.serve(head, Payload::new(&data, 0), &[VolatileSlice::from(&mut *reply)], may_wait);
    let served = match serve(false) {
        Served::WouldBlock => {
            // What waits carries no names and attributes that last until there is word: nothing is held back for it.
            turn.end();
            serve(true)
        }
        served => served,
    };
    match served {
        Served::Reply(len) => reply.get(..len as usize),
        Served::Silent => None,
        other => {
            log::warn!("a request of the kernel was not answered: {other:?}");
            None
        }
    }
}
