# shellcheck shell=bash
# How a source directory is served: the one place that knows. A kind is a command that stays in the foreground and
# unmounts on SIGTERM. The environment may put other programs in the place of ours.

COMMAND=()
SERVER_PID=
SERVER_LOG=
WHY=

# server_command KIND SOURCE MOUNTPOINT [options]: sets COMMAND. The options are those of ferryfs in both kinds.
server_command() {
    local kind=$1 source=$2 mountpoint=$3
    shift 3
    case $kind in
    # The kernel's /dev/fuse, read by ferryfs itself.
    fuse)
        read -ra COMMAND <<<"${FERRYFS_MOUNT:-$TARGET/release/ferryfs mount}"
        COMMAND+=("$source" "$mountpoint" "$@")
        ;;
    # The same kernel client, its requests carried over virtqueues to a vhost-user daemon.
    bridge)
        read -ra COMMAND <<<"${FERRYFS_BRIDGE:-$TARGET/release/ferryfs-bridge}"
        COMMAND+=(--daemon "${FERRYFS_DAEMON:-$TARGET/release/ferryfs} --shared-dir $source $*" "$mountpoint")
        ;;
    *) say "serve: no kind $kind" && return 1 ;;
    esac
}

is_mounted() { awk -v at="$1" '$5 == at { found = 1 } END { exit !found }' /proc/self/mountinfo; }

# serve KIND LOG SOURCE MOUNTPOINT [options]: returns when the mount is there; on failure the last line of LOG says why.
serve() {
    local kind=$1 log=$2 mountpoint=$4
    shift 2
    server_command "$kind" "$@" >"$log" || return
    mkdir -p "$mountpoint"
    "${COMMAND[@]}" >"$log" 2>&1 </dev/null &
    SERVER_PID=$! SERVER_LOG=$log
    for _ in $(seq 300); do
        is_mounted "$mountpoint" && return 0
        kill -0 "$SERVER_PID" 2>/dev/null || break
        sleep 0.1
    done
    end_server "$mountpoint"
    echo "no mount appeared: $(tail -n 1 "$log")" >>"$log"
    return 1
}

# end_server MOUNTPOINT: asks the server to end. Fails, with the reason in WHY, unless it exits with 0 and leaves no mount.
end_server() {
    local mountpoint=$1 status
    WHY=
    kill -TERM "$SERVER_PID" 2>/dev/null
    if timeout 30 tail --pid="$SERVER_PID" -f /dev/null; then
        wait "$SERVER_PID"
        status=$?
        [ "$status" -eq 0 ] || WHY="the server's exit status was $status"
    else
        WHY="the server did not end within 30 s of SIGTERM"
        kill -KILL "$SERVER_PID"
    fi
    # A panic that was contained leaves no other trace.
    if grep -qse "mistake of ferryfs's own" -e "panicked at" "$SERVER_LOG"; then
        WHY="${WHY:+$WHY; }the server met a mistake of its own (see $SERVER_LOG)"
    fi
    if is_mounted "$mountpoint"; then
        WHY="${WHY:+$WHY; }the mount stayed behind"
        # -f aborts the connection, so that nothing waits for a server that is gone.
        umount -f "$mountpoint" 2>/dev/null || umount -l "$mountpoint"
    fi
    [ -z "$WHY" ]
}
