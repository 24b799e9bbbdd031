//! The guest's side of virtio-fs, without a VM: a vhost-user front end, rings driven by hand, a FUSE client on them, and
//! a bridge that carries this machine's own kernel client over them. For tests and benchmarks of vhost-user-fs daemons.
//!
//! ```no_run
//! use ferryfs_guest::{Client, Daemon, Desc, Options, expect_errno};
//! use fuse_abi::{Errno, ROOT_ID};
//!
//! let mut daemon = Daemon::share("virtiofsd".as_ref(), "/some/dir".as_ref(), &["--sandbox", "none"])?;
//! let mut client = Client::connect(daemon.connect()?, &Options::default())?;
//! client.init()?;
//! expect_errno(client.lookup(ROOT_ID, "missing"), Errno::ENOENT);
//! // Any chain at all: this one reads beyond the end of memory.
//! let limit = client.limit();
//! client.lane().ring().post_raw(&[Desc::readable(u64::MAX - 10, 4096), Desc::writable(0x1000, 0)])?;
//! client.lane().ring().wait(limit)?;
//! # Ok::<(), ferryfs_guest::Error>(())
//! ```

#![cfg(target_os = "linux")]

pub mod bridge;
pub mod client;
pub mod coherence;
pub mod daemon;
pub mod dirents;
pub mod dirty_log;
pub mod error;
pub mod front_end;
pub mod lane;
pub mod memory;
pub mod message;
pub mod null_device;
pub mod operations;
pub mod ring;
pub mod torture;

pub use bridge::{Bridge, BridgeOptions};
pub use client::{Caller, Client, Reply, Request, expect_errno};
pub use daemon::{Daemon, find_daemon, mountable_ferryfs, skipped};
pub use error::{Error, Result};
pub use front_end::{FrontEnd, Options, Queue};
pub use lane::{Completion, Cuts, Lane, LaneSize, Slot};
pub use memory::Memory;
pub use null_device::NullDevice;
pub use ring::{Desc, Ring, Used};
