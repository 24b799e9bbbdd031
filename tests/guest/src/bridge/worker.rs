//! A thread of the bridge: takes requests from /dev/fuse as long as it has slots, sends them without waiting, and writes
//! each reply back as it comes. Requests are read straight into guest memory and replies written straight from it.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fuse_abi::{BatchForgetIn, Errno, ForgetIn, ForgetOne, InHeader, Opcode, OutHeader};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io as host;
use zerocopy::IntoBytes;

use super::counts::Counts;
use super::device::Device;
use super::shape::{ARGUMENTS, Route, route};
use crate::error::{Error, Result};
use crate::lane::{Completion, Cuts, Lane, REPLY_LEAD, Slot};

/// One request queue and the descriptor whose requests it carries.
pub struct Worker {
    pub device: Device,
    pub lane: Lane,
    pub hiprio: Arc<Mutex<Lane>>,
    pub counts: Arc<Counts>,
    pub limit: Duration,
    /// How long to look for replies before sleeping.
    pub spin: Duration,
    /// Cut payloads at pages.
    pub pages: bool,
    /// Set when the daemon has hung up: no reply will come any more.
    pub daemon_gone: Arc<AtomicBool>,
}

/// What one attempt to take a request found.
enum Taken {
    Request,
    Nothing,
    Unmounted,
}

impl Worker {
    /// Serves until the mount is gone; returns the lane with nothing in flight.
    pub fn run(mut self) -> Result<Lane> {
        self.lane.ring().disarm()?;
        'mounted: loop {
            let mut progress = false;
            while self.lane.has_free() {
                match self.take_request()? {
                    Taken::Request => progress = true,
                    Taken::Nothing => break,
                    Taken::Unmounted => break 'mounted,
                }
            }
            progress |= self.write_replies()?;
            if !progress && !self.spin()? && !self.sleep()? {
                break;
            }
        }
        if self.daemon_gone.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        self.lane.drain(self.limit)?;
        Ok(self.lane)
    }

    fn take_request(&mut self) -> Result<Taken> {
        let Some(slot) = self.lane.take() else { return Ok(Taken::Nothing) };
        let read = self.lane.fill_from(&slot, &mut self.device.as_fd())?;
        let error = match read {
            Ok(len) => return self.forward(slot, len).map(|()| Taken::Request),
            Err(error) => error,
        };
        self.lane.give_back(slot);
        match host::Errno::from_io_error(&error) {
            Some(host::Errno::AGAIN) => Ok(Taken::Nothing),
            // A request that was given up while it was being read.
            Some(host::Errno::INTR | host::Errno::NOENT) => Ok(Taken::Request),
            Some(host::Errno::NODEV | host::Errno::CONNABORTED) => Ok(Taken::Unmounted),
            _ => Err(Error::Io { what: "read /dev/fuse", source: error }),
        }
    }

    fn forward(&mut self, slot: Slot, len: u32) -> Result<()> {
        let header = self.lane.header(&slot)?;
        self.counts.request(header.opcode);
        let mut arguments = [0; ARGUMENTS];
        let at = self.lane.request_at(&slot) + size_of::<InHeader>() as u64;
        let known = (len as usize).saturating_sub(size_of::<InHeader>()).min(ARGUMENTS);
        self.lane.memory().read(at, &mut arguments[..known])?;
        match route(header.opcode, &arguments[..known]) {
            Route::Request(room) => {
                let write = header.opcode == Opcode::Write.number();
                let cuts = if write { Cuts::LINUX_WRITE } else { Cuts::LINUX };
                let room = REPLY_LEAD.saturating_add(room).min(self.lane.reply_capacity());
                return self.lane.submit(slot, header.unique, len, room, &Cuts { pages: self.pages, ..cuts });
            }
            Route::Forget => {
                let ForgetIn { nlookup } = self.lane.memory().get(at)?;
                self.forget(header, ForgetOne { nodeid: header.nodeid, nlookup })?;
            }
            Route::BatchForget => {
                let BatchForgetIn { count, .. } = self.lane.memory().get(at)?;
                let first = at + size_of::<BatchForgetIn>() as u64;
                for index in 0..u64::from(count) {
                    let one = self.lane.memory().get(first + index * size_of::<ForgetOne>() as u64)?;
                    self.forget(header, one)?;
                }
            }
            Route::Drop => {}
        }
        self.lane.give_back(slot);
        Ok(())
    }

    fn forget(&self, like: InHeader, ForgetOne { nodeid, nlookup }: ForgetOne) -> Result<()> {
        let body = ForgetIn { nlookup };
        let len = (size_of::<InHeader>() + size_of::<ForgetIn>()) as u32;
        let header = InHeader { len, opcode: Opcode::Forget.number(), nodeid, ..like };
        let mut hiprio = self.hiprio.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while hiprio.try_complete()?.is_some() {}
        if !hiprio.has_free() {
            hiprio.complete(self.limit)?;
        }
        hiprio.send(header.unique, header.as_bytes(), &[body.as_bytes()], 0, &Cuts::NONE)
    }

    fn write_replies(&mut self) -> Result<bool> {
        let mut any = false;
        while let Some(completion) = self.lane.try_complete()? {
            write_reply(&self.device, &self.counts, &completion)?;
            any = true;
        }
        Ok(any)
    }

    /// Looks for replies without sleeping, if there are any to come; true when one came.
    fn spin(&mut self) -> Result<bool> {
        let start = Instant::now();
        while self.lane.in_flight() > 0 && start.elapsed() < self.spin {
            if self.write_replies()? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// Sleeps until a reply or, where there is a slot for it, a request has come; false when the mount is gone.
    fn sleep(&mut self) -> Result<bool> {
        self.lane.ring().arm()?;
        let mut mounted = true;
        if !self.write_replies()? {
            let wanted = if self.lane.has_free() { PollFlags::IN } else { PollFlags::empty() };
            let call = PollFd::from_borrowed_fd(self.lane.call_fd(), PollFlags::IN);
            let mut fds = [call, PollFd::new(&self.device, wanted)];
            match poll(&mut fds, None) {
                Ok(_) | Err(host::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("wait for requests")(errno)),
            }
            mounted = !fds[1].revents().contains(PollFlags::ERR);
            self.lane.ring().drain_call();
        }
        self.lane.ring().disarm()?;
        Ok(mounted)
    }
}

fn write_reply(device: &Device, counts: &Counts, completion: &Completion<'_>) -> Result<()> {
    let written = match completion.check() {
        Ok(()) | Err(Error::Errno(_)) => completion.write_to(&mut device.as_fd())?,
        Err(error) => {
            eprintln!("bridge: {error}");
            counts.malformed();
            let len = size_of::<OutHeader>() as u32;
            let broken = OutHeader { len, error: Errno::EIO.wire(), unique: completion.unique() };
            rustix::io::write(device, broken.as_bytes()).map_err(Into::into)
        }
    };
    match written {
        Ok(_) => Ok(()),
        Err(source) => match host::Errno::from_io_error(&source) {
            // The caller was killed, or the mount is gone: nobody waits for this reply.
            Some(host::Errno::NOENT | host::Errno::NODEV | host::Errno::CONNABORTED | host::Errno::PERM) => Ok(()),
            Some(host::Errno::INVAL) => {
                eprintln!("bridge: the kernel refused the reply {:?}", completion.header());
                counts.malformed();
                Ok(())
            }
            _ => Err(Error::Io { what: "write /dev/fuse", source }),
        },
    }
}
