//! The messages that begin a session, of file systems and of character devices.

use crate::InitFlags;
use crate::wire::{constants, structs};

constants! {
    CUSE_INIT_INFO_MAX: usize = 4096, CUSE_INIT_INFO_MAX, "The most bytes of text that follow a [`CuseInitOut`].";
}

structs! {
    /// What the client offers. Before 7.36 it ends after `flags`: read it with [`read_short`](crate::read_short).
    InitIn = fuse_init_in {
        major: u32, "The client's major version.";
        minor: u32, "The client's minor version.";
        max_readahead: u32, "The most bytes the client reads ahead.";
        flags: u32, "The lower half of [`InitFlags`].";
        flags2: u32, "The upper half, if [`InitFlags::INIT_EXT`] is set.";
        unused: [u32; 11], "Reserved.";
    }

    /// What the server accepts. Older clients get a short one, see [`InitOut::size_for_minor`].
    InitOut = fuse_init_out {
        major: u32, "The server's major version.";
        minor: u32, "The server's minor version.";
        max_readahead: u32, "The most bytes the client may read ahead.";
        flags: u32, "The lower half of [`InitFlags`].";
        max_background: u16, "The most background requests under way.";
        congestion_threshold: u16, "Background requests from which the client holds back.";
        max_write: u32, "The most bytes in a write.";
        time_gran: u32, "The granularity of timestamps in nanoseconds, a power of ten.";
        max_pages: u16, "The most pages in a request, with [`InitFlags::MAX_PAGES`].";
        map_alignment: u16, "The alignment of mappings as a power of two, with [`InitFlags::MAP_ALIGNMENT`].";
        flags2: u32, "The upper half of [`InitFlags`], if [`InitFlags::INIT_EXT`] is set.";
        max_stack_depth: u32, "How deep file systems may be stacked, with [`InitFlags::PASSTHROUGH`].";
        request_timeout: u16, "Seconds until a request is given up, with [`InitFlags::REQUEST_TIMEOUT`].";
        unused: [u16; 11], "Reserved.";
    }

    /// What the client of a character device offers.
    CuseInitIn = cuse_init_in {
        major: u32, "The client's major version.";
        minor: u32, "The client's minor version.";
        unused: u32, "Unused.";
        flags: u32, "See [`CuseInitFlags`](crate::CuseInitFlags).";
    }

    /// What the server of a character device accepts.
    CuseInitOut = cuse_init_out {
        major: u32, "The server's major version.";
        minor: u32, "The server's minor version.";
        unused: u32, "Unused.";
        flags: u32, "See [`CuseInitFlags`](crate::CuseInitFlags).";
        max_read: u32, "The most bytes in a read.";
        max_write: u32, "The most bytes in a write.";
        dev_major: u32, "The device's major number.";
        dev_minor: u32, "The device's minor number.";
        spare: [u32; 10], "Reserved.";
    }
}

impl InitIn {
    /// What the client offers: `flags2` counts only with [`InitFlags::INIT_EXT`].
    #[must_use]
    pub const fn init_flags(&self) -> InitFlags {
        let low = InitFlags::join(self.flags, 0);
        if low.contains(InitFlags::INIT_EXT) { InitFlags::join(self.flags, self.flags2) } else { low }
    }
}

impl InitOut {
    /// Writes both words. Upper bits set [`InitFlags::INIT_EXT`] too: without it a client ignores them.
    pub const fn set_init_flags(&mut self, accepted: InitFlags) {
        let (flags, flags2) = accepted.split();
        let (ext, _) = InitFlags::INIT_EXT.split();
        self.flags = if flags2 == 0 { flags } else { flags | ext };
        self.flags2 = flags2;
    }
}
