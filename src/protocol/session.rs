//! INIT and DESTROY: what this guest and we agreed on, readable by every queue without a lock.
//!
//! Clients from 7.27 on are served in full. Older ones get the short structs they know, down to the first, and whatever
//! their version has; none of them has been seen with virtio-fs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use fuse_abi::{Errno, InitFlags, InitOut, KERNEL_MINOR_VERSION, KERNEL_VERSION};

use super::arguments::Offer;
use super::{Agreement, FileSystem};

/// The unit of `max_pages`. A guest with larger pages takes more bytes for it, which `max_write` bounds.
const PAGE: u32 = 4096;
/// What a client without MAX_PAGES can put into one request.
const OLD_MAX_WRITE: u32 = 32 * PAGE;

/// What this room decides by itself, whatever a file system wishes.
const OURS: InitFlags = InitFlags::MAX_PAGES.union(InitFlags::BIG_WRITES);
/// What this crate has no part for, or what belongs to the encoding only.
const NEVER: InitFlags = InitFlags::FILE_OPS
    .union(InitFlags::INIT_EXT)
    .union(InitFlags::INIT_RESERVED)
    .union(InitFlags::MAP_ALIGNMENT)
    .union(InitFlags::HAS_INODE_DAX)
    .union(InitFlags::OVER_IO_URING)
    .union(InitFlags::HAS_IO_URING_BUFPOOL)
    .union(InitFlags::REQUEST_TIMEOUT);

/// The state of one connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// 0, or the agreement in one word: flags, minor version, and a bit that says it is there.
    state: AtomicU64,
    /// Makes beginnings and ends wait for each other. Says whether the client has begun any session yet.
    turn: Mutex<bool>,
}

const LIVE: u64 = 1 << 63;
const MINOR_SHIFT: u32 = 56;
const MINOR_MASK: u64 = 0x7f;
const FLAGS_MASK: u64 = (1 << MINOR_SHIFT) - 1;

impl Session {
    /// The terms in force, if a session is.
    pub fn agreement(&self) -> Option<Agreement> {
        let state = self.state.load(Ordering::Acquire);
        (state & LIVE != 0).then(|| Agreement {
            minor: (state >> MINOR_SHIFT & MINOR_MASK) as u32,
            flags: InitFlags::from_bits_retain(state & FLAGS_MASK),
        })
    }

    /// Answers INIT. A session that was not ended ends first: the guest was started anew.
    ///
    /// # Errors
    /// `EPROTO` for a major version older than ours.
    pub fn begin(&self, fs: &impl FileSystem, offer: &Offer) -> Result<InitOut, Errno> {
        let versions = InitOut { major: KERNEL_VERSION, minor: KERNEL_MINOR_VERSION, ..InitOut::default() };
        if offer.major > KERNEL_VERSION {
            // The client falls back to our version and sends INIT again.
            return Ok(versions);
        }
        if offer.major < KERNEL_VERSION {
            return Err(Errno::EPROTO);
        }
        let mut begun = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *begun = true;
        self.end_in_turn(fs);
        let (agreed, reply) = negotiate(fs, offer);
        fs.begin(&agreed);
        let state = LIVE | u64::from(agreed.minor) << MINOR_SHIFT | agreed.flags.bits();
        self.state.store(state, Ordering::Release);
        Ok(reply)
    }

    /// Ends the session, if there is one.
    pub fn end(&self, fs: &impl FileSystem) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.end_in_turn(fs);
    }

    /// The client is gone, and no request is under way. One that was when the guest said DESTROY may have taken
    /// something since: that is given up as well.
    pub fn leave(&self, fs: &impl FileSystem) {
        let mut begun = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.store(0, Ordering::Release);
        if std::mem::take(&mut *begun) {
            fs.end();
        }
    }

    fn end_in_turn(&self, fs: &impl FileSystem) {
        // First nothing new is let in, then what is there is given up.
        if self.state.swap(0, Ordering::AcqRel) & LIVE != 0 {
            fs.end();
        }
    }
}

fn negotiate(fs: &impl FileSystem, offer: &Offer) -> (Agreement, InitOut) {
    let wishes = fs.wishes();
    let mut flags = offer.flags & (wishes.flags | OURS) & !NEVER;
    flags = InitFlags::from_bits_truncate(flags.bits());
    if !flags.contains(InitFlags::POSIX_ACL) {
        // Linux refuses the whole connection for the one without the other.
        flags.remove(InitFlags::ALLOW_IDMAP);
    }
    let minor = offer.minor.min(KERNEL_MINOR_VERSION);
    let paged = flags.contains(InitFlags::MAX_PAGES);
    let max_write = if paged { wishes.max_write } else { wishes.max_write.min(OLD_MAX_WRITE) };
    let mut reply = InitOut {
        major: KERNEL_VERSION,
        minor,
        max_readahead: offer.max_readahead.min(wishes.max_readahead),
        max_background: wishes.max_background,
        // Three quarters, as other servers have it.
        congestion_threshold: wishes.max_background.saturating_sub(wishes.max_background / 4),
        max_write,
        time_gran: wishes.time_gran.clamp(1, 1_000_000_000),
        ..InitOut::default()
    };
    if paged {
        reply.max_pages = u16::try_from(max_write.div_ceil(PAGE).max(1)).unwrap_or(u16::MAX);
    }
    if flags.contains(InitFlags::PASSTHROUGH) {
        reply.max_stack_depth = wishes.max_stack_depth;
    }
    reply.set_init_flags(flags);
    (Agreement { minor, flags }, reply)
}
