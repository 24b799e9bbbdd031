//! Who the process is: ids, groups, capabilities.
//!
//! Ids and capabilities belong to threads. All of this is done while there is only one; later ones inherit it.

use std::ffi::CString;
use std::io;

pub use rustix::thread::CapabilitySet;
use rustix::thread::{self, CapabilitySets};

/// The effective user id.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The effective group id.
pub fn group() -> u32 {
    rustix::process::getegid().as_raw()
}

/// Makes the calling thread's user root of its user namespace.
pub fn become_root_user() -> io::Result<()> {
    let root = rustix::process::Uid::ROOT;
    Ok(thread::set_thread_res_uid(root, root, root)?)
}

/// Makes the calling thread's group that of root of its user namespace.
pub fn become_root_group() -> io::Result<()> {
    let root = rustix::process::Gid::ROOT;
    Ok(thread::set_thread_res_gid(root, root, root)?)
}

/// Leaves all supplementary groups; says how many are left where that is not allowed.
pub fn leave_groups() -> io::Result<usize> {
    match thread::set_thread_groups(&[]) {
        Ok(()) => Ok(0),
        Err(rustix::io::Errno::PERM) => Ok(rustix::process::getgroups()?.len()),
        Err(error) => Err(error.into()),
    }
}

/// Keeps of the held capabilities only those in `wanted`, and says which are held now.
pub fn restrict_capabilities(wanted: CapabilitySet) -> io::Result<CapabilitySet> {
    // By number: the kernel may know capabilities that have no name here.
    for capability in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        if wanted.contains(capability) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(capability) {
            // There is no such capability; or without CAP_SETPCAP the bounding set stays as it is.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let held = thread::capabilities(None)?.permitted & wanted;
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets)?;
    Ok(held)
}

/// From here on no program that is executed can gain privileges.
pub fn forbid_new_privileges() -> io::Result<()> {
    Ok(thread::set_no_new_privs(true)?)
}

/// The id of the group called `name`, if there is one.
pub fn group_named(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    let mut room = vec![0; 1024];
    loop {
        let mut entry = std::mem::MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: every pointer is valid for the call and `room` is as long as is said.
        let error = unsafe {
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &raw mut found)
        };
        match error {
            0 if found.is_null() => return Ok(None),
            // SAFETY: the call succeeded and `found` points to the entry it filled in.
            0 => return Ok(Some(unsafe { (*found).gr_gid })),
            libc::ERANGE if room.len() < 1 << 24 => room.resize(room.len() * 4, 0),
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}
