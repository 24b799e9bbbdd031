//! Telling whoever started the daemon that a front end can connect.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use log::{info, warn};

use super::error::Error;

/// The service manager that wants to be told, found by the environment variable NOTIFY_SOCKET.
#[derive(Debug)]
pub struct ServiceManager(Option<OwnedFd>);

impl ServiceManager {
    /// Connects to it, if there is one, while its socket is still in view.
    pub fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self(None) };
        let connected = connect(name.as_bytes());
        if let Err(error) = &connected {
            warn!("cannot reach the service manager at {}: {error}", name.display());
        }
        Self(connected.ok())
    }

    /// Tells it that the service is ready.
    pub fn tell(&self) {
        let told = self.0.as_ref().map(|socket| rustix::io::write(socket, b"READY=1\n"));
        if let Some(Err(error)) = told {
            warn!("cannot tell the service manager that the daemon is ready: {error}");
        }
    }
}

fn connect(name: &[u8]) -> io::Result<OwnedFd> {
    let socket = UnixDatagram::unbound()?;
    match name.strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(std::ffi::OsStr::from_bytes(name))?,
    }
    Ok(socket.into())
}

/// The right to say, once, that the daemon serves.
#[derive(Debug)]
pub struct Ready {
    to: Listener,
    what: String,
}

#[derive(Debug)]
enum Listener {
    Warden(OwnedFd),
    Manager(ServiceManager),
}

impl Ready {
    /// To be told to the warden, who tells the service manager: that one listens to the process it started.
    pub(super) fn through_warden(pipe: OwnedFd, what: String) -> Self {
        Self { to: Listener::Warden(pipe), what }
    }

    /// To be told to the service manager.
    pub(super) fn directly(manager: ServiceManager, what: String) -> Self {
        Self { to: Listener::Manager(manager), what }
    }

    /// Says that the daemon serves: in the log, and to whoever waits for it.
    pub fn announce(self) -> Result<(), Error> {
        info!("{}", self.what);
        match self.to {
            Listener::Manager(manager) => manager.tell(),
            Listener::Warden(pipe) => {
                rustix::io::write(&pipe, &[1])
                    .map_err(|error| Error::system("the process that started the sandbox is gone", error, ""))?;
            }
        }
        Ok(())
    }
}
