# shellcheck shell=bash
# How a guest and its server are started, talked to and ended. One server and one guest have a folder of their own,
# $RUN, with the socket, the serial lines and the logs; everything that is started is ended by its number.

# shellcheck source=tests/tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../tools/lib.sh"
GUEST=$TARGET/guest
export FERRYFS=$TARGET/release/ferryfs
E2E=$ROOT/tests/e2e
SERVER_PID='' QEMU_PID='' PORT_IN='' PORT_OUT='' RUN='' WHY='' MOUNTS=''

# new_run: a short folder name, because the path of a socket has 107 bytes at most.
new_run() {
    RUN=$(mktemp -d /tmp/ferryfs-guest.XXXXXX)
    chmod 0755 "$RUN"
}

# make_ready KERNEL: installs QEMU and makes the kernel and the base of the guest; says why when that fails.
make_ready() {
    local log=$GUEST/kernel-$1.log
    "$ROOT/tests/tools/need" qemu busybox cpio kmod xz debian-keys || return 1
    mkdir -p "$GUEST"
    "$E2E/guest/base" || return 1
    if ! "$E2E/guest/kernel" "$1" >"$log" 2>&1 </dev/null; then
        skip "kernel $1" "$(tail -n 1 "$log")"
        return 1
    fi
    accelerator >/dev/null
    if [ "$(emulator "$1")" != qemu-system-x86_64 ] && ! "$E2E/guest/qemu" >"$log" 2>&1 </dev/null; then
        skip "kernel $1" "$(tail -n 1 "$log")"
        return 1
    fi
}

# emulator KERNEL: the QEMU that runs it. Emulated by QEMU 7.2, Linux 6.12 crashes where it patches its own code while
# another CPU runs; QEMU 10 runs it, and so does KVM.
emulator() {
    local own
    own=$(qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9]*\).*/\1/p')
    if [ "$1" = 6.12 ] && [ "$(accelerator)" = tcg ] && [ "${own:-0}" -lt 10 ]; then
        say "$GUEST/qemu/qemu-system-x86_64"
    else
        say qemu-system-x86_64
    fi
}

# accelerator: kvm where it runs the guest's kernel within 10 seconds, tcg elsewhere. Tried once for each kernel of the host.
accelerator() {
    local memory=$GUEST/accelerator ports
    if [ "$(sed -n 1p "$memory" 2>/dev/null)" != "$(uname -r)" ]; then
        ports=$(mktemp -d /tmp/ferryfs-guest.XXXXXX)
        { uname -r && (try_kvm "$ports/console") 2>/dev/null && echo kvm || echo tcg; } >"$memory"
        rm -rf "$ports"
    fi
    sed -n 2p "$memory"
}

try_kvm() {
    [ -w /dev/kvm ] || return 1
    timeout -s KILL 10 qemu-system-x86_64 -accel kvm -cpu host -m 512 -nodefaults -no-user-config -display none -no-reboot \
        -serial "file:$1" -kernel "$GUEST/kernel-6.1/vmlinuz" -initrd "$GUEST/base.cpio" \
        -append "console=ttyS0 quiet panic=-1 rdinit=/busybox/busybox -- echo IT RUNS" >/dev/null 2>&1 </dev/null
    grep -q 'IT RUNS' "$1" 2>/dev/null
}

# start_server SERVER SHARED [OPTIONS...]: returns when it listens on $RUN/socket; fails, with the reason in WHY, when it
# does not.
start_server() {
    local server=$1 shared=$2
    shift 2
    MOUNTS=$(mounts)
    setpriv --pdeathsig KILL "$server" --shared-dir "$shared" --socket-path "$RUN/socket" "$@" \
        >"$RUN/server.log" 2>&1 </dev/null &
    SERVER_PID=$!
    for _ in $(seq 1200); do
        # The flag of a socket that listens; its file is there earlier.
        ! grep -q " 00010000 .* $RUN/socket\$" /proc/net/unix || return 0
        kill -0 "$SERVER_PID" 2>/dev/null || break
        sleep 0.1
    done
    WHY="the server did not listen: $(tail -n 1 "$RUN/server.log")"
    return 1
}

# serve SHARED: ferryfs as whoever calls. Where a plain user may not make the namespaces of a sandbox, without one.
serve() {
    ! start_server "$FERRYFS" "$1" || return 0
    [ "$(id -u)" -ne 0 ] && grep -q 'sandbox of namespaces' "$RUN/server.log" || return
    say "this machine gives plain users no namespaces, so ferryfs runs with --sandbox none"
    start_server "$FERRYFS" "$1" --sandbox none
}

# initrd KERNEL [tools]: the guest's root, the pieces that it is made of one after the other.
initrd() {
    local file=$GUEST/initrd-$1${2:+-$2}
    cat "$GUEST/base.cpio" "$GUEST/kernel-$1/modules.cpio" ${2:+"$GUEST/$2.cpio"} >"$file.$$"
    mv "$file.$$" "$file"
    say "$file"
}

# boot KERNEL CPUS QUEUES LIMIT INITRD -- [VARIABLE=VALUE...]: starts a guest that ends by itself, or after LIMIT seconds.
# CONSOLE may say where its console goes (a QEMU character device), INPUT and OUTPUT where QEMU's own go; MEMORY, in MiB, how much it has.
boot() {
    local kernel=$1 cpus=$2 queues=$3 limit=$4 initrd=$5 acceleration
    shift 6
    acceleration=$(accelerator)
    mkfifo "$RUN/port.in" "$RUN/port.out"
    # Opened for both directions, so that nobody waits for the other side to open.
    exec {PORT_IN}<>"$RUN/port.in" {PORT_OUT}<>"$RUN/port.out"
    # shellcheck disable=SC2054 # commas belong to QEMU's options
    local words=(
        -machine "q35,accel=$acceleration,memory-backend=mem" -smp "$cpus" -nodefaults -no-user-config -display none
        -cpu "$([ "$acceleration" = kvm ] && echo host || echo max)"
        -m "${MEMORY:-1024}" -object "memory-backend-memfd,id=mem,size=${MEMORY:-1024}M,share=on"
        -chardev "${CONSOLE:-file,path=$RUN/console},id=console" -serial chardev:console
        -chardev "pipe,id=port,path=$RUN/port" -serial chardev:port
        -chardev "socket,id=fs,path=$RUN/socket"
        -device "vhost-user-fs-pci,chardev=fs,tag=share,num-request-queues=$queues,queue-size=1024"
        -kernel "$GUEST/kernel-$kernel/vmlinuz" -initrd "$initrd"
        # On a busy machine the test of the emulated timer can fail, and a kernel without a timer hangs.
        -append "console=ttyS0 quiet panic=-1 no_timer_check rdinit=/init $*"
    )
    [[ " $* " == *" FERRY_AFTER=reboot "* ]] || words+=(-no-reboot)
    setpriv --pdeathsig KILL "$(emulator "$kernel")" "${words[@]}" >"${OUTPUT:-$RUN/qemu.log}" 2>&1 <"${INPUT:-/dev/null}" \
        {PORT_IN}>&- {PORT_OUT}>&- &
    QEMU_PID=$!
    {
        wait_for "$QEMU_PID" "$limit" || { kill -KILL "$QEMU_PID" && echo "ended after $limit s" >>"$RUN/console"; }
        # The pipe has no end of its own: both sides of it are open here.
        printf '%s\n' "$END" >&"$PORT_OUT"
    } >/dev/null 2>&1 </dev/null {PORT_IN}>&- &
}

# What comes after all that a guest wrote, perhaps in the middle of a line.
END=$'\004'

# attend SHARED HANDLER...: serves the guest's lines until the guest is gone. `HOST command` runs here, in SHARED; every
# other line goes to HANDLER, which ends the loop by failing.
attend() {
    local shared=$1 line rest answer status
    shift
    # Without a limit: a read that runs out of time may lose the character that comes at that moment.
    while IFS= read -r -u "$PORT_OUT" line; do
        rest=${line%"$END"}
        if [[ $rest == "HOST "* ]]; then
            answer=$(cd "$shared" && timeout -k 1 60 sh -c "${rest#HOST }" 2>>"$RUN/host.log" </dev/null)
            status=$?
            printf '%s %s\n' "$status" "$answer" >&"$PORT_IN"
        elif [ -n "$rest" ]; then
            "$@" "$rest" || return 0
        fi
        [ "$line" = "$rest" ] || return 0
    done
}

# wait_for PID SECONDS: fails when the process is still there after that.
wait_for() { timeout "$2" tail -s 0.2 --pid="$1" -f /dev/null; }

# end_guest: waits for QEMU, whose time limit is its own.
end_guest() {
    [ -z "$QEMU_PID" ] || wait "$QEMU_PID"
    local status=$?
    QEMU_PID=
    [ -z "$PORT_IN" ] || exec {PORT_IN}>&-
    [ -z "$PORT_OUT" ] || exec {PORT_OUT}<&-
    PORT_IN='' PORT_OUT=''
    rm -f "$RUN/port.in" "$RUN/port.out"
    return $status
}

# end_server: the server ends when its guest is gone. Fails, with the reason in WHY, when it does not or leaves something.
end_server() {
    local status
    WHY=
    [ -n "$SERVER_PID" ] || return 0
    if wait_for "$SERVER_PID" 120; then
        wait "$SERVER_PID"
        status=$?
        [ "$status" -eq 0 ] || WHY="the server's exit status was $status"
    else
        WHY="the server did not end within 120 s of its guest"
        kill -KILL "$SERVER_PID"
        wait "$SERVER_PID" 2>/dev/null
    fi
    SERVER_PID=
    [ -n "$WHY" ] || ! left_behind || WHY="left behind: $(left_behind)"
    [ -z "$WHY" ]
}

# mounts: those in the folder of the run, number and place; options may change.
mounts() { awk -v run="$RUN" 'index($0, run) { print "mount " $1 " on " $5 }' /proc/self/mountinfo; }

# left_behind: what of this run is still on the host though everything has ended; fails when nothing is.
left_behind() {
    {
        [ ! -e "$RUN/socket" ] || echo "the socket"
        awk -v path="$RUN/socket" '$NF == path { print "a bound socket" }' /proc/net/unix
        # A test may have mounted what it shares before the server began.
        mounts | grep -vxF -- "$MOUNTS"
        # A namespace lives as long as a process in it; ours name the folder of the run.
        grep -lsF -- "$RUN/" /proc/[0-9]*/cmdline
    } | grep .
}

# stop_all: for the trap of a script that ends early.
stop_all() {
    local pid
    for pid in $QEMU_PID $SERVER_PID; do
        kill -KILL "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    [ -z "${RUN:-}" ] || rm -rf "$RUN"
}
