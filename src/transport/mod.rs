//! What carries requests here and replies back.
#![allow(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

#[cfg(all(feature = "daemon", target_os = "linux"))]
pub mod dev_fuse;
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub mod vhost_user;
pub mod virtqueue;
