//! The daemon's processes end together.

use std::path::Path;

use rustix::process::Signal;

use ferryfs_guest::skipped;

use crate::support::{Share, expect_service, is_root, wait_for};

#[test]
fn a_daemon_that_is_killed_while_it_serves_leaves_no_process() {
    if !is_root() {
        return skipped("needs root");
    }
    for sandbox in ["namespace", "chroot"] {
        let mut share = Share::new(&["--sandbox", sandbox]);
        let mut client = share.client();
        expect_service(&mut client, "the start");
        let serving = share.daemon.serving_pid();
        assert_ne!(serving, share.daemon.pid(), "{sandbox}");
        share.daemon.signal(Signal::KILL).unwrap();
        let gone = || (!Path::new(&format!("/proc/{serving}")).exists()).then_some(());
        wait_for("the end of the process that serves", gone);
    }
}
