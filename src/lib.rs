//! ferryfs shares a host directory with a virtual machine over virtio-fs.

pub mod coherence;
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub mod daemon;
pub mod directory;
pub mod host;
pub mod passthrough;
pub mod protocol;
pub mod transport;
