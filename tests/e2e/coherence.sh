# shellcheck shell=bash
# What guests see of the host's changes: the coherence checker with one half in the guest and one here, talking over a serial
# line, and file events for programs of the guest that wait for them.
# shellcheck disable=SC2016,SC2034 # what is quoted runs in the guest; WHY is read where a test was started

# check_coherence KERNEL QUEUES CHECKER'S OPTIONS -- SERVER [OPTIONS...]: random actions on both sides, and the guest's looks
# compared with the host's. What was counted goes to $OUT/coherence, a line for each test.
check_coherence() {
    local kernel=$1 queues=$2 options=()
    shift 2
    while [ "$1" != -- ]; do options+=("$1") && shift; done
    shift
    make_ready "$kernel" || { WHY="kernel $kernel cannot be fetched" && return 77; }
    start_server "$1" "$SHARE" "${@:2}" &&
        boot "$kernel" "$queues" "$queues" 1400 "$(initrd "$kernel" tools)" -- FERRY_RUN=/e2e/checked && wait_up 240 || return
    "$TARGET/release/ferryfs-coherence" --shared "$SHARE" --steps "$CHECKED" "${options[@]}" \
        <&"$PORT_OUT" >&"$PORT_IN" 2>"$RUN/checker.log"
    local status=$?
    echo "$TEST: $(tail -n 1 "$RUN/checker.log")" >>"$OUT/coherence"
    must "$(tail -n 6 "$RUN/checker.log" | tr '\n' ';')" test "$status" -eq 0 || return
    echo >&"$PORT_IN"
    end_guest
    end_server
}

coherent() { check_coherence "$1" "$2" --seed "$3" "${@:4}" -- "$FERRYFS" --cache coherent --num-request-queues "$2" --dir-stream "$STREAM" ${TIMEOUT:+--attr-timeout $TIMEOUT}; }
checked_getdents() { STREAM=getdents coherent 6.1 1 1; }
checked_getdents_two_queues() { STREAM=getdents coherent newest 2 2; }
checked_snapshot() { STREAM=snapshot coherent newest 1 3; }
checked_snapshot_two_queues() { STREAM=snapshot coherent 6.1 2 4; }
checked_every_stat() { STREAM=getdents TIMEOUT=0 coherent newest 2 5 --strict; }

# That the checker finds what is stale is shown by servers that let the guest trust blindly.
checked_always_is_stale() { CHECKED=60 check_coherence 6.1 1 --expect-stale -- "$FERRYFS" --cache always; }
peer_is_stale() {
    [ -n "$PEER" ] || { WHY="no virtiofsd is installed" && return 77; }
    CHECKED=60 check_coherence 6.1 1 --expect-stale -- "$PEER" --cache "$1"
    # How it ends is its own affair.
    [[ $WHY == "left behind: "* ]]
}
checked_virtiofsd_auto_is_stale() { peer_is_stale auto; }
checked_virtiofsd_always_is_stale() { peer_is_stale always; }

# A guest that cannot hear of changes: with the event file and its helper a program that waits for events is woken, and the share
# stays as it is. Once with the guest's own commands and once with busybox's.
file_events() {
    start_server "$FERRYFS" "$SHARE" --cache coherent --event-file .ferryfs-events &&
        PARTS=tools open_guest 6.1 1 || return
    local path dir before
    for path in /usr/bin /busybox; do
        dir=with${path//\//-}
        mkdir "$SHARE/$dir" && echo one >"$SHARE/$dir/file" && echo one >"$SHARE/$dir/gone"
        step "bg echo \$\$ > /tmp/helper-pid; PATH=$path:\$PATH exec ferryfs-events /share > /tmp/helper"
        step "bg echo \$\$ > /tmp/watcher-pid; exec inotifywait -m --format '%e %f' $dir > /tmp/events 2> /tmp/watching"
        says "Watches established." /tmp/watching &&
            says "ferryfs-events: following /share/.ferryfs-events" /tmp/helper &&
            expect 2 "ls $dir | wc -l" || return
        echo two >"$SHARE/$dir/file"
        before=$(stat -c '%y %z' "$SHARE/$dir/file")
        says "MODIFY file" /tmp/events && expect two "cat $dir/file" || return
        echo new >"$SHARE/$dir/new"
        says "MODIFY new" /tmp/events && expect new "cat $dir/new" || return
        rm "$SHARE/$dir/gone"
        says "MODIFY,ISDIR" /tmp/events && expect 2 "ls $dir | wc -l" || return
        must "the helper changed the share" test "$before" = "$(stat -c '%y %z' "$SHARE/$dir/file")" &&
            expect "" 'kill $(cat /tmp/helper-pid /tmp/watcher-pid); rm /tmp/events /tmp/watching /tmp/helper' || return
    done
    close_guest
}
# says LINE FILE: by and by a program of the guest has written it, blanks at its end apart. Otherwise what it wrote last is shown.
says() { expect "$1" "for i in \$(seq 600); do grep -m 1 -x '$1 *' $2 && exit; sleep 0.1; done; cat $2"; }

run_coherence() {
    local test before=$SECONDS
    rm -f "$OUT/coherence"
    for test in checked_getdents checked_getdents_two_queues checked_snapshot checked_snapshot_two_queues checked_every_stat \
        checked_always_is_stale checked_virtiofsd_auto_is_stale checked_virtiofsd_always_is_stale file_events; do
        wanted $test || continue
        TEST=$test COLUMN=coherence run_test $test $test
    done
    [ ! -e "$OUT/coherence" ] || cat "$OUT/coherence"
    say "coherence: $(tally coherence) ($((SECONDS - before)) s)"
}
