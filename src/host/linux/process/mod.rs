//! System calls that shape the process itself: namespaces, mounts, identity, limits, signals, descriptors.
//!
//! Mechanism only: which of them are made, in which order and why is decided by the daemon.
#![allow(unsafe_code)]

pub mod descriptors;
pub mod identity;
pub mod limits;
pub mod mounts;
pub mod namespaces;
pub mod signals;
