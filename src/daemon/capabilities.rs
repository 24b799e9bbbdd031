//! Which capabilities the serving process keeps, and letting go of all others.
//!
//! The threads that serve change their file-system ids for each request, and the kernel takes the file capabilities
//! out of the effective set while such an id is not root's. That is wanted, so SECBIT_NO_SETUID_FIXUP stays clear; no
//! other securebit is needed, as nothing is executed and no new privileges can be gained.

use log::debug;

use super::error::Error;
use super::options::DaemonOptions;
use super::values::InodeFileHandles;
use crate::host::linux::process::identity::{self, CapabilitySet};

/// What serving needs: each capability with the condition under which it does.
fn needed(options: &DaemonOptions) -> CapabilitySet {
    let always = true;
    let writes = !options.file_system.readonly;
    let handles = options.file_system.inode_file_handles != InodeFileHandles::Never;
    let table = [
        // To become the request's user and group.
        (CapabilitySet::SETUID, always),
        (CapabilitySet::SETGID, always),
        // What the guest's root may do with files of others.
        (CapabilitySet::DAC_OVERRIDE, always),
        (CapabilitySet::FOWNER, always),
        (CapabilitySet::CHOWN, writes),
        (CapabilitySet::FSETID, writes),
        (CapabilitySet::MKNOD, writes),
        (CapabilitySet::SETFCAP, writes),
        // To open an inode by its handle.
        (CapabilitySet::DAC_READ_SEARCH, handles),
    ];
    let needed: CapabilitySet =
        table.into_iter().filter(|(_, holds)| *holds).map(|(capability, _)| capability).collect();
    (needed | options.isolation.modcaps.kept) - options.isolation.modcaps.dropped
}

/// Lets go of every capability that serving does not need, for good, and of the way to new privileges.
pub fn drop_to_needed(options: &DaemonOptions) -> Result<(), Error> {
    let wanted = needed(options);
    let held = identity::restrict_capabilities(wanted).map_err(|e| Error::system("cannot drop capabilities", e, ""))?;
    if !held.contains(wanted) {
        debug!("these capabilities were not there to keep: {:?}", wanted - held);
    }
    identity::forbid_new_privileges().map_err(|e| Error::system("cannot set no_new_privs", e, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::values::CapabilityChanges;

    #[test]
    fn changes_name_capabilities_in_any_case_and_the_later_one_counts() {
        let changes: CapabilityChanges = "+sys_admin:-CHOWN:+chown:-mknod".parse().unwrap();
        assert_eq!(changes.kept, CapabilitySet::SYS_ADMIN | CapabilitySet::CHOWN);
        assert_eq!(changes.dropped, CapabilitySet::MKNOD);
        assert!(changes.drops("MKNOD") && !changes.drops("CHOWN"));
        for text in ["chown", "+", "+chown:", ":", "+no_such", "*chown"] {
            assert!(text.parse::<CapabilityChanges>().is_err(), "{text}");
        }
    }
}
