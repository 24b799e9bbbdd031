# shellcheck shell=bash
# Guests whose host gives them one command after the other: what the tests of failures and of two guests are made of.
# Each test runs in a process of its own, because it has a server, a guest and a folder of its own.

# open_guest KERNEL QUEUES [BOOT VARIABLES...]: boots a guest that takes steps, on the server of this process, and waits until it
# has mounted the share. PARTS=tools gives it more than busybox.
open_guest() {
    local kernel=$1 queues=$2 line
    shift 2
    boot "$kernel" 1 "$queues" 600 "$(initrd "$kernel" ${PARTS:-})" -- FERRY_RUN=/e2e/step "$@"
    wait_up 240
}

# wait_up SECONDS: until the guest says that it is up.
wait_up() {
    local line
    while IFS= read -r -t "$1" -u "$PORT_OUT" line; do
        [ "$line" != UP ] || return 0
        [ "$line" != NOMOUNT ] || break
    done
    WHY="the guest did not come up: ${line:-$(tail -n 1 "$RUN/console" | tr -d '\r')}"
    return 1
}

# step COMMAND: what it said is in ANSWER. The status is the command's, or 200 when no answer came within STEP_LIMIT seconds.
step() {
    local status
    printf '%s\n' "$1" >&"$PORT_IN"
    IFS=' ' read -r -t "${STEP_LIMIT:-240}" -u "$PORT_OUT" status ANSWER || { ANSWER='(no answer)' && return 200; }
    return "$status"
}

# expect TEXT COMMAND: the guest's answer to a command is TEXT.
expect() {
    step "$2"
    [ "$ANSWER" = "$1" ] || { WHY="in the guest, $2: '$ANSWER', not '$1'" && return 1; }
}

# must WHAT COMMAND...: a command of the host that must succeed.
must() {
    local what=$1
    shift
    "$@" || { WHY=${WHY:-$what} && return 1; }
}

close_guest() {
    echo end >&"$PORT_IN"
    end_guest
    end_server
}

# kill_now PID: and wait until it is gone.
kill_now() {
    kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    return 0
}

# run_test NAME FUNCTION: in a process of its own; what its guests and servers said is kept when it fails. COLUMN may say
# where in the table it stands.
run_test() {
    local before=$SECONDS column=${COLUMN:-failures} why
    why=$(
        trap 'end_test $?' EXIT
        WHY='' KEEP=$OUT/logs/$column/$1
        local me=$BASHPID
        { wait_for "$me" 1500 || kill -TERM "$me"; } >/dev/null 2>&1 &
        new_run
        SHARE=$RUN/share
        mkdir "$SHARE"
        exec 5>&1 >"$RUN/test.log" 2>&1
        "$2"
    )
    case $? in
    0) record "$column" "$1" passed $((SECONDS - before)) ;;
    77) record "$column" "$1" skipped 0 "$why" ;;
    *) record "$column" "$1" failed $((SECONDS - before)) "$why" ;;
    esac
}

# end_test STATUS: also where the shell itself gave up.
end_test() {
    [ -z "$QEMU_PID" ] || kill_now "$QEMU_PID"
    [ -z "$SERVER_PID" ] || kill_now "$SERVER_PID"
    [ "$1" -eq 0 ] || keep_logs "$KEEP"
    umount -l "$SHARE" 2>/dev/null
    rm -rf "$RUN"
    [ "$1" -eq 0 ] || echo "${WHY:-status $1}" >&5
    exit "$1"
}

keep_logs() {
    mkdir -p "$1"
    cp -r "$RUN"/*.log "$RUN/console" "$1" 2>/dev/null
}

# Two guests, each with a server of its own, on one directory.
two_guests() {
    local shared=$SHARE first=$RUN kernel=6.1
    [ ! -e "$GUEST/kernel-newest/version" ] || kernel=newest
    start_server "$FERRYFS" "$shared" && open_guest 6.1 1 || return
    # The second lives in a process of its own, driven through two pipes.
    mkfifo "$first/ask" "$first/tell"
    (
        SERVER_PID='' QEMU_PID='' PORT_IN='' PORT_OUT=''
        new_run
        start_server "$FERRYFS" "$shared" && open_guest "$kernel" 1 && echo UP || echo "$WHY"
        while IFS= read -r line; do step "$line"; echo "$? $ANSWER"; done <"$first/ask"
        close_guest || echo "$WHY" >&2
        keep_logs "$first/second-guest.log"
        rm -rf "$RUN"
    ) >"$first/tell" {PORT_IN}>&- {PORT_OUT}>&- &
    local second=$! answer
    # Opened for both directions, so that neither side waits for the other to open.
    exec 6<>"$first/ask" 4<>"$first/tell"
    read -r -t 300 -u 4 answer
    must "the second guest: $answer" test "$answer" = UP && two_guests_work
    local status=$?
    exec 6>&-
    wait "$second" || { WHY="the second server did not end"; status=1; }
    exec 4<&-
    close_guest && return $status
}

# other TEXT COMMAND: as `expect`, in the second guest.
other() {
    local answer
    echo "$2" >&6
    read -r -t 240 -u 4 _ answer
    [ "$answer" = "$1" ] || { WHY="in the second guest, $2: '$answer', not '$1'" && return 1; }
}

two_guests_work() {
    local claim='n=0; for i in $(seq 200); do ( set -C; echo $me > claim-$i ) 2>/dev/null && n=$((n + 1)); done; echo $n'
    local mine yours wins
    expect "" "echo first > from-first" &&
        other first "cat /share/from-first" &&
        other "" "echo second >> /share/from-first" &&
        expect second "sleep 1.1; tail -n 1 from-first" || return
    # Both claim the same names at once; a name has one owner.
    echo "cd /share; me=2; $claim" >&6
    step "me=1; $claim"
    mine=$ANSWER
    read -r -t 240 -u 4 _ yours
    [[ $mine$yours =~ ^[0-9]+$ ]] || { WHY="claims: the guests say '$mine' and '$yours'" && return 1; }
    wins=$(cat "$SHARE"/claim-* | sort | uniq -c | awk '{ print $2 ":" $1 }' | tr '\n' ' ')
    must "claims: guests say $mine and $yours, files say $wins" \
        test "$wins" = "$( ((mine == 0)) || printf '1:%s ' "$mine"; ((yours == 0)) || printf '2:%s ' "$yours")" || return
    must "claims: $mine and $yours" test $((mine + yours)) -eq 200 || return
    # One removes and renames while the other lists.
    step 'bg for i in $(seq 200); do mv claim-$i done-$i; done; echo > all-done'
    other "200" 'cd /share; until [ -e all-done ]; do n=$(ls | grep -cE "^(claim|done)-"); [ $n -ge 200 ] || echo $n; done; sleep 1.1; ls | grep -c "^done-"' &&
        other "" "rm /share/done-*" &&
        expect "0" 'sleep 1.1; ls | grep -c done-'
}

run_together() {
    wanted two_guests || return 0
    run_test two_guests two_guests
}

# wanted TEST: whether a narrowed run asked for it.
# shellcheck disable=SC2154
wanted() { [ -z "$narrowed" ] || has "$scenarios" "$1"; }
