# shellcheck shell=bash
# What happens when a part fails: each test says what it expects of every side, and that nothing stays behind.
# shellcheck disable=SC2016,SC2034 # what is quoted runs in the guest; WHY is read where a test was started

# Each acknowledged write is there although the machine that made it is gone; the server ends and leaves nothing.
qemu_killed() {
    start_server "$FERRYFS" "$SHARE" && open_guest 6.1 1 &&
        expect "" 'echo acknowledged > file && dd if=/dev/zero of=data bs=64k count=16 conv=fsync 2>/dev/null' || return
    step 'bg while :; do echo more >> growing; done'
    kill_now "$QEMU_PID"
    QEMU_PID=
    end_server &&
        must "acknowledged data is lost" grep -qx acknowledged "$SHARE/file" &&
        must "acknowledged data is lost" test "$(wc -c <"$SHARE/data")" -eq 1048576
}

# A guest whose kernel panics in the middle of its writes.
guest_panics() {
    start_server "$FERRYFS" "$SHARE" && open_guest 6.1 1 && expect "" 'echo acknowledged > file' || return
    step 'bg while :; do echo more >> growing; done'
    step 'bg echo c > /proc/sysrq-trigger'
    end_guest
    end_server && must "acknowledged data is lost" grep -qx acknowledged "$SHARE/file"
}

# A process of the guest that holds 200 files open and is killed: the server closes them.
guest_process_killed() {
    start_server "$FERRYFS" "$SHARE" && open_guest 6.1 1 &&
        expect 200 'for i in $(seq 200); do echo $i > f$i; done; ls -l | grep -c f' || return
    local idle
    idle=$(descriptors_of "$SERVER_PID")
    step 'bg exec tail -f f*'
    must "200 open files are not open in the server" eventually descriptors_at_least $((idle + 200)) &&
        expect "" 'kill -9 $(pidof tail)' &&
        must "descriptors: $idle before, and after" eventually descriptors_at_most "$idle" &&
        expect 200 'cat f200' && close_guest
}

# With --persist the server outlives its guest and serves the next one, which sees what the first one wrote.
qemu_killed_persistent_server() {
    start_server "$FERRYFS" "$SHARE" --persist && open_guest 6.1 1 &&
        expect "" 'echo first > file; echo > open' && expect "" 'bg exec tail -f open' || return
    local idle
    for _ in 1 2; do
        kill_now "$QEMU_PID"
        end_guest
        open_guest 6.1 1 && expect first 'cat file' || return
    done
    kill_now "$QEMU_PID"
    end_guest
    # Nothing of three guests is kept when a fourth has come and gone.
    must "the server keeps what it had open for its guests" eventually nothing_held || return
    idle=$(descriptors_of "$SERVER_PID")
    open_guest 6.1 1 && expect first 'for i in 1 2 3 4 5 6 7 8 9; do echo > n$i; done; cat file' || return
    kill_now "$QEMU_PID"
    end_guest
    must "descriptors: $idle before a guest, and after" eventually descriptors_at_most "$idle" || return
    kill -TERM "$SERVER_PID"
    end_server
}

# The process that serves is a child of the one that was started.
descriptors_of() {
    local pid total=0
    for pid in "$1" $(pgrep -P "$1"); do
        total=$((total + $(find "/proc/$pid/fd" -mindepth 1 2>/dev/null | wc -l)))
    done
    echo $total
}

descriptors_at_least() { [ "$(descriptors_of "$SERVER_PID")" -ge "$1" ]; }
descriptors_at_most() { [ "$(descriptors_of "$SERVER_PID")" -le "$1" ]; }

# Files of the guests, by the names that the server knew them by.
nothing_held() {
    local pid
    for pid in "$SERVER_PID" $(pgrep -P "$SERVER_PID"); do
        ! find "/proc/$pid/fd" -lname '*/open' -o -lname '*/file' 2>/dev/null | grep -q . || return 1
    done
}

# eventually COMMAND...: it succeeds within a minute.
eventually() {
    for _ in $(seq 600); do
        ! "$@" || return 0
        sleep 0.1
    done
    return 1
}

# The guest lives on and can be switched off; what touches the share waits. A new server can take the socket's path.
server_killed() {
    start_server "$FERRYFS" "$SHARE" && open_guest 6.1 1 && expect "" 'echo acknowledged > file; sync -f file' || return
    local children
    children=$(pgrep -P "$SERVER_PID" | tr '\n' ' ')
    kill_now "$SERVER_PID"
    SERVER_PID=
    for child in $children; do
        wait_for "$child" 120 || { WHY="a process of the server stayed behind" && return 1; }
    done
    # Not in /share: there the shell would wait as well.
    expect "" 'at /' && expect alive 'echo alive' &&
        step 'bg cat /share/file > /tmp/read; echo done >> /tmp/read' &&
        expect 0 'sleep 1; wc -c < /tmp/read' &&
        must "acknowledged data is lost" grep -qx acknowledged "$SHARE/file" || return
    kill_now "$QEMU_PID"
    end_guest
    start_server "$FERRYFS" "$SHARE" && open_guest 6.1 1 && expect acknowledged 'cat file' && close_guest
}

# A guest that reboots in place mounts again, first after unmounting in order, then without.
guest_reboots() {
    start_server "$FERRYFS" "$SHARE" && open_guest 6.1 1 FERRY_AFTER=reboot &&
        expect "" 'echo one > boots' || return
    echo end >&"$PORT_IN"
    wait_up 240 && expect one 'cat boots' &&
        expect "" 'echo two >> boots; exec 3>> boots; dd if=/dev/zero of=data bs=64k count=16 2>/dev/null' || return
    echo 'bg reboot -f' >&"$PORT_IN"
    wait_up 240 && expect two 'tail -n 1 boots' && expect 1048576 'wc -c < data' || return
    step 'bg poweroff -f'
    end_guest
    end_server
}

# The host's directory fills up: ENOSPC where it belongs, and what was acknowledged is there.
full_directory() {
    mount -t tmpfs -o size=8m tmpfs "$SHARE" || { WHY="no tmpfs can be mounted" && return 77; }
    start_server "$FERRYFS" "$SHARE" "$@" && open_guest 6.1 1 &&
        expect "" 'seq 1000 > before; sync -f before' || return
    step 'dd if=/dev/zero of=big bs=64k count=1000 conv=fsync'
    [[ $? -ne 0 && $ANSWER != *bytes* ]] || { WHY="writing 64 MB to 8 MB went well: $ANSWER" && return 1; }
    step 'dd if=/dev/zero of=big bs=64k count=1000 conv=fsync 2>&1 | grep -o "No space left on device"'
    must "the guest was told '$ANSWER', not that there is no space" test "$ANSWER" = "No space left on device" &&
        expect "$(seq 1000 | md5sum)" 'md5sum < before' &&
        expect "" 'rm big' &&
        must "what was removed still takes its space" eventually has_space &&
        expect again 'echo again > again; sync -f again; cat again' &&
        expect "0" 'df . | tail -n 1 | grep -c 100%' &&
        must "acknowledged data is lost" test "$(seq 1000 | md5sum)" = "$(md5sum <"$SHARE/before")" || return
    umount_after_close
}
# The space comes back when the guest has forgotten the file, which it says without waiting for an answer.
has_space() { [ "$(stat -f -c %f "$SHARE")" -gt 1000 ]; }
full_directory_writeback() { full_directory --writeback; }

umount_after_close() {
    close_guest && must "the source cannot be unmounted: something holds it" umount "$SHARE"
}

# A source that the host itself mounted read-only, served as if it could be written.
read_only_source() {
    mount -t tmpfs tmpfs "$SHARE" && echo there >"$SHARE/file" && mount -o remount,ro "$SHARE" || return 77
    start_server "$FERRYFS" "$SHARE" && open_guest 6.1 1 &&
        expect there 'cat file' &&
        expect "touch: new: Read-only file system" 'touch new' &&
        expect "rm: can't remove 'file': Read-only file system" 'rm -f file' &&
        expect "sh: can't create file: Read-only file system" 'echo > file' &&
        expect "mkdir: can't create directory 'd': Read-only file system" 'mkdir d' &&
        expect there 'cat file' && umount_after_close
}

# mount_disk [OPTION...]: an ext4 on a loop device as the source, its image in $RUN/disk.
mount_disk() {
    local disk=$RUN/disk
    "$ROOT/tests/tools/need" e2fsprogs xfsprogs && [ -e /dev/loop-control ] && mkdir "$disk" && truncate -s 64M "$disk/image" &&
        mkfs.ext4 -q -E lazy_itable_init=0,nodiscard "$disk/image" && mount -o loop,errors=continue "$disk/image" "$SHARE" ||
        { WHY="no ext4 on a loop device can be made here" && return 77; }
}

# Sectors that cannot be read: the disk's image is cut off.
unreadable_disk() {
    mount_disk || return
    start_server "$FERRYFS" "$SHARE" --cache never && open_guest 6.1 1 &&
        expect "" 'seq 100000 > before; dd if=/dev/zero of=file bs=64k count=64 conv=fsync 2>/dev/null' || return
    sync -f "$SHARE"
    truncate -s 4K "$RUN/disk/image"
    # Out of the host's cache, so that the disk is asked.
    dd if="$SHARE/file" iflag=nocache count=0 status=none
    step 'cat file 2>&1 >/dev/null | grep -o "Input/output error"'
    must "a failing read said '$ANSWER', not EIO" test "$ANSWER" = "Input/output error" &&
        expect alive 'echo alive' &&
        expect "$(seq 100000 | md5sum)" 'md5sum < before' &&
        umount_after_close
}

# A disk that is gone from one moment to the next: EIO for whatever needs it, and what was acknowledged is there when it is back.
lost_disk() {
    mount_disk || return
    start_server "$FERRYFS" "$SHARE" "$@" && open_guest 6.1 1 &&
        expect "" 'seq 100000 > before; sync -f before; exec 3> open; echo held >&3' || return
    xfs_io -x -c 'shutdown -f' "$SHARE" || { WHY="this file system cannot be shut down" && return 77; }
    local what
    for what in 'echo more > open; sync -f open' 'dd if=/dev/zero of=before bs=64k count=16 conv=fsync' 'touch new' 'rm before' \
        'mkdir dir' 'mv before after'; do
        step "{ $what; } 2>&1 | grep -o 'Input/output error' | tail -n 1"
        must "$what said '$ANSWER', not EIO" test "$ANSWER" = "Input/output error" || return
    done
    expect alive 'echo alive' && umount_after_close && must "the disk stays in use" eventually disk_free && mount -o loop "$RUN/disk/image" "$SHARE" &&
        must "acknowledged data is lost" test "$(seq 100000 | md5sum)" = "$(md5sum <"$SHARE/before")"
}
# A namespace that some process of this machine just made may hold a copy of the mount for a moment, and a second mount
# would then get the file system that was shut down.
disk_free() { [ -z "$(losetup -j "$RUN/disk/image")" ]; }
lost_disk_writeback() { lost_disk --writeback; }

run_failures() {
    local test
    for test in qemu_killed qemu_killed_persistent_server guest_panics guest_process_killed server_killed guest_reboots \
        full_directory full_directory_writeback read_only_source unreadable_disk lost_disk lost_disk_writeback; do
        wanted $test || continue
        run_test $test $test
    done
    say "failures: $(tally failures)"
}
