//! The socket, its pid file, and who is told about it.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::Command;

use crate::cases;
use crate::support::{Place, STUB, assert_fails, is_root, wait_for};

cases! {
    Nothing:
        the_pid_file_names_the_process_that_was_started_and_is_locked,
        a_socket_of_a_daemon_that_runs_is_refused_to_another,
        a_socket_that_another_program_listens_on_is_refused,
        a_stale_socket_and_pid_file_are_replaced,
        a_file_that_is_no_socket_is_left_alone,
        the_socket_is_its_owners_alone,
        a_group_that_does_not_exist_is_refused,
        an_inherited_socket_is_served,
        an_inherited_descriptor_that_does_not_listen_is_refused,
        a_socket_that_cannot_be_created_is_explained,
        a_directory_that_cannot_be_shared_is_explained,
        the_service_manager_is_told_once_a_front_end_can_connect,
        the_log_says_that_it_serves_and_where;
    Root:
        the_socket_can_be_given_to_a_group,
        the_service_manager_is_told_by_the_process_it_started,
        messages_go_to_the_system_log;
}

/// The sandbox that whoever runs the tests can have.
fn sandboxes() -> &'static [&'static str] {
    if is_root() { &["--sandbox namespace", "--sandbox chroot", "--sandbox none"] } else { &["--sandbox none"] }
}

fn the_pid_file_names_the_process_that_was_started_and_is_locked() {
    for sandbox in sandboxes() {
        let place = Place::new();
        fs::write(place.pid_file(), "99999999999999\n").unwrap();
        let mut daemon = place.start(sandbox);
        assert_eq!(fs::read_to_string(place.pid_file()).unwrap(), format!("{}\n", daemon.pid()), "{sandbox}");
        let file = fs::File::open(place.pid_file()).unwrap();
        let lock = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        assert_eq!(lock, Err(rustix::io::Errno::WOULDBLOCK), "{sandbox}");
        assert_eq!(daemon.ask("quit well"), "");
        assert!(daemon.wait().0.success(), "{sandbox}");
        assert!(!place.pid_file().exists() && !place.socket().exists(), "{sandbox}");
    }
}

fn a_socket_of_a_daemon_that_runs_is_refused_to_another() {
    for sandbox in sandboxes() {
        let place = Place::new();
        let mut first = place.start(sandbox);
        let holder = first.pid().to_string();
        assert_fails(&mut place.command(sandbox), 1, &["in use", &holder, "--socket-path"]);
        assert_eq!(first.ask("list share"), "directory file", "{sandbox}");
    }
}

fn a_socket_that_another_program_listens_on_is_refused() {
    let place = Place::new();
    let other = UnixListener::bind(place.socket()).unwrap();
    assert_fails(&mut place.command("--sandbox none"), 1, &["in use", "--socket-path"]);
    assert!(place.socket().exists() && !place.pid_file().exists());
    drop(other);
}

fn a_stale_socket_and_pid_file_are_replaced() {
    let place = Place::new();
    drop(UnixListener::bind(place.socket()).unwrap());
    fs::write(place.pid_file(), "1\n").unwrap();
    let daemon = place.start("--sandbox none");
    assert_eq!(fs::read_to_string(place.pid_file()).unwrap(), format!("{}\n", daemon.pid()));
}

fn a_file_that_is_no_socket_is_left_alone() {
    let place = Place::new();
    fs::write(place.socket(), "precious").unwrap();
    assert_fails(&mut place.command("--sandbox none"), 1, &["no socket", "--socket-path"]);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "precious");
}

fn the_socket_is_its_owners_alone() {
    let place = Place::new();
    let _daemon = place.start("--sandbox none");
    assert_eq!(fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(place.pid_file()).unwrap().permissions().mode() & 0o777, 0o600);
}

fn the_socket_can_be_given_to_a_group() {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let fields = |line: &str| Some((line.split(':').next()?.to_owned(), line.split(':').nth(2)?.parse::<u32>().ok()?));
    let (name, id) = groups.lines().filter_map(fields).find(|(_, id)| *id != 0).unwrap();
    let place = Place::new();
    let _daemon = place.start(&format!("--socket-group {name}"));
    let socket = fs::metadata(place.socket()).unwrap();
    assert_eq!((socket.gid(), socket.uid(), socket.mode() & 0o777), (id, 0, 0o770));
}

fn a_group_that_does_not_exist_is_refused() {
    let place = Place::new();
    assert_fails(&mut place.command("--socket-group no-such-group"), 1, &["no-such-group", "--socket-group"]);
    assert!(!place.socket().exists() && !place.pid_file().exists());
}

fn an_inherited_socket_is_served() {
    for sandbox in sandboxes() {
        let place = Place::new();
        let listener = UnixListener::bind(place.socket()).unwrap();
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
        let mut command = place.bare_command();
        command.arg("--shared-dir").arg(place.path("share")).args(["--fd", &listener.as_raw_fd().to_string()]);
        command.args(sandbox.split_whitespace());
        let mut daemon = place.start_command(&mut command);
        drop(listener);
        assert_eq!(daemon.ask("quit well"), "");
        assert!(daemon.wait().0.success(), "{sandbox}");
        assert!(place.socket().exists(), "the socket belongs to whoever made it");
        assert!(!place.pid_file().exists());
    }
}

fn an_inherited_descriptor_that_does_not_listen_is_refused() {
    let place = Place::new();
    let mut command = place.bare_command();
    command.arg("--shared-dir").arg(place.path("share")).args(["--fd", "0"]);
    assert_fails(&mut command, 1, &["descriptor 0", "listens"]);
    let mut command = place.bare_command();
    command.arg("--shared-dir").arg(place.path("share")).args(["--fd", "999"]);
    assert_fails(&mut command, 1, &["descriptor 999", "open one"]);
}

fn a_socket_that_cannot_be_created_is_explained() {
    let place = Place::new();
    let long = place.path(&"long".repeat(40));
    let nowhere = place.path("nowhere/socket");
    for (path, words) in [(nowhere, ["nowhere", "create its directory"]), (long, ["socket", "shorter"])] {
        let mut command = place.bare_command();
        command.arg("--shared-dir").arg(place.path("share")).arg("--socket-path").arg(path);
        assert_fails(&mut command, 1, &words);
    }
}

fn a_directory_that_cannot_be_shared_is_explained() {
    let place = Place::new();
    for (name, words) in [("nothing", ["nothing", "create it"]), ("share/file", ["share/file", "takes a directory"])] {
        let mut command = place.bare_command();
        command.arg("--shared-dir").arg(place.path(name)).arg("--socket-path").arg(place.socket());
        assert_fails(&mut command, 1, &words);
        assert!(!place.socket().exists());
    }
}

fn hear(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut message = [0; 256];
    let length = socket.recv(&mut message).unwrap();
    String::from_utf8(message[..length].into()).unwrap()
}

fn the_service_manager_is_told_once_a_front_end_can_connect() {
    for sandbox in sandboxes() {
        let place = Place::new();
        let manager = UnixDatagram::bind(place.path("manager")).unwrap();
        let name = format!("ferryfs-test-{}-{sandbox}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(manager, place.path("manager")), (hidden, format!("@{name}").into())] {
            let mut command = place.command(sandbox);
            let mut child = command.env("NOTIFY_SOCKET", address).stderr(std::process::Stdio::null()).spawn().unwrap();
            assert_eq!(hear(&socket), "READY=1\n", "{sandbox}");
            std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            // Killed, it could not clean up, and in a sandbox the one inside may take a moment to follow.
            wait_for("the end of the one inside", || {
                std::os::unix::net::UnixStream::connect(place.socket()).is_err().then_some(())
            });
        }
    }
}

fn the_service_manager_is_told_by_the_process_it_started() {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};
    let place = Place::new();
    let manager = UnixDatagram::bind(place.path("manager")).unwrap();
    sockopt::set_socket_passcred(&manager, true).unwrap();
    let mut command = place.command("--sandbox namespace");
    let daemon = place.start_command(command.env("NOTIFY_SOCKET", place.path("manager")));
    let mut text = [0; 64];
    let mut room = [std::mem::MaybeUninit::uninit(); 256];
    let mut ancillary = RecvAncillaryBuffer::new(&mut room);
    let mut parts = [std::io::IoSliceMut::new(&mut text)];
    recvmsg(&manager, &mut parts, &mut ancillary, RecvFlags::empty()).unwrap();
    let sender = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid.as_raw_nonzero().get()),
        _ => None,
    });
    assert_eq!(sender, i32::try_from(daemon.pid()).ok());
}

fn the_log_says_that_it_serves_and_where() {
    let place = Place::new();
    let mut daemon = place.start("--sandbox none");
    daemon.ask("quit well");
    let (_, told) = daemon.wait();
    assert!(told.contains("INFO") && told.contains(place.socket().to_str().unwrap()), "{told}");
    // Kata's runtime waits for these words of virtiofsd's.
    assert!(told.contains("Waiting for vhost-user socket connection"), "{told}");
    let mut daemon = place.start_command(place.command("--sandbox none --log-level error").env("RUST_LOG", "off"));
    daemon.ask("quit well");
    assert_eq!(daemon.wait().1, "");
}

fn messages_go_to_the_system_log() {
    let place = Place::new();
    fs::create_dir(place.path("dev")).unwrap();
    let log = UnixDatagram::bind(place.path("dev/log")).unwrap();
    let program = place.command("--syslog --log-level info");
    let mut command = Command::new("unshare");
    let script = format!("mount --bind {} /dev && exec \"$0\" \"$@\"", place.path("dev").display());
    command.args(["--mount", "sh", "-c", &script]).arg(program.get_program()).args(program.get_args()).env(STUB, "1");
    let mut daemon = place.start_command(&mut command);
    let pid = daemon.pid();
    let message = wait_for("the message", || Some(hear(&log)).filter(|text| text.contains("serving")));
    assert!(message.starts_with(&format!("<30>ferryfs[{pid}]: serving '")), "{message}");
    daemon.ask("quit badly");
    assert_eq!(hear(&log), format!("<27>ferryfs[{pid}]: asked to fail"));
    let mut pipe = daemon.child.stderr.take().unwrap();
    assert_eq!(daemon.wait().0.code(), Some(1));
    let mut told = String::new();
    pipe.read_to_string(&mut told).unwrap();
    assert_eq!(told, "ferryfs: asked to fail\n");
}
