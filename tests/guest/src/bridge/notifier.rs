//! The thread that carries notifications: gives the device buffers, and writes what comes in them to /dev/fuse.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};

use super::counts::Counts;
use super::device::Device;
use crate::error::{Error, Result};
use crate::lane::{Cuts, Lane, LaneSize};

/// The buffers of the notification queue.
pub const NOTIFICATIONS: LaneSize = LaneSize { slots: 16, request: 4096, reply: 65536, indirect: false };

/// The notification queue and what it needs.
pub struct Notifier {
    pub device: Device,
    pub lane: Lane,
    pub counts: Arc<Counts>,
    /// Becomes readable when the mount is gone.
    pub gone: OwnedFd,
}

impl Notifier {
    /// Serves until the mount is gone.
    pub fn run(mut self) -> Result<()> {
        loop {
            while let Some(slot) = self.lane.take() {
                self.lane.submit(slot, 0, 0, self.lane.reply_capacity(), &Cuts::NONE)?;
            }
            self.lane.ring().arm()?;
            if let Some(message) = self.lane.try_complete()? {
                // The kernel refuses what it does not know of or no longer holds; that is its answer, not a fault.
                let _ = message.write_to(&mut self.device.as_fd())?;
                self.counts.notification();
                continue;
            }
            let call = PollFd::from_borrowed_fd(self.lane.call_fd(), PollFlags::IN);
            let mut fds = [call, PollFd::new(&self.gone, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("wait for notifications")(errno)),
            }
            if !fds[1].revents().is_empty() {
                return Ok(());
            }
            self.lane.ring().drain_call();
        }
    }
}
