# shellcheck shell=bash
# The suites: each runs in a directory and records one line a test in $RESULTS. What it said is kept in $LOGS.

# record SUITE CONFIG TEST pass|fail|skip [detail]
record() {
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$SOURCE" "$2" "$3" "$4" "${5:-}" >>"$RESULTS"
    if [ "$4" = fail ] && [[ $2 != bare* ]]; then say "    $1 $3 on $SOURCE ($2): ${5:-failed}"; fi
}

# answers SUITE CONFIG DIRECTORY: fails, and records it, where the directory does not answer: whatever is done in it next
# would wait for ever.
answers() {
    timeout -k 1 30 stat -f "$3" >/dev/null 2>&1 && return
    record "$1" "$2" "the rest" fail "the directory no longer answers"
    return 1
}

tidy() { timeout -k 1 60 rm -rf "$1"; }

# suite_pjdfstest CONFIG DIRECTORY
suite_pjdfstest() {
    local config=$1 base=$2/pjdfstest log="$LOGS/$SOURCE-$1-pjdfstest"
    # pjdfstest 0.2.2 fills a path up to PATH_MAX and panics when that takes a multiple of 127 characters; it adds 22.
    while (((4095 - ${#base} - 22) % 127 < 2)); do base+=x; done
    answers pjdfstest "$config" "$2" && mkdir -p "$base" || return
    pjdfstest_part "$log" "$config" "$base" pjdfstest.toml
    # The read-only cases remount, which takes a process of their own: others leave descriptors open for writing.
    pjdfstest_part "$log-erofs" "$config" "$base" pjdfstest-remount.toml erofs
    timeout -k 1 30 mount -i -o remount,rw "$2"
    tidy "$base"
}

pjdfstest_part() {
    local log=$1 config=$2 base=$3 toml=$4 status outcome test detail
    shift 4
    timeout -k 10 900 pjdfstest -c "$INSIDE/$toml" -s "$SECOND" -p "$base" "$@" >"$log" 2>&1
    status=$?
    while IFS=$'\t' read -r test outcome detail; do
        record pjdfstest "$config" "$test" "$outcome" "$detail"
    done < <(awk -f "$HERE/pjdfstest.awk" "$log")
    grep -q '^Summary' "$log" || record pjdfstest "$config" "whole run $*" fail "ended early, status $status"
}

# suite_fsx CONFIG DIRECTORY [all|unmapped]: unmapped leaves out what maps the file shared.
suite_fsx() {
    local config=$1 base=$2/fsx test=${3:-all} log="$LOGS/$SOURCE-$1-fsx-${3:-all}"
    answers fsx "$config" "$2" && mkdir -p "$base" "$log.artifacts" || return
    say "  $SOURCE, $config: fsx, $test operations, $FSX_OPERATIONS of them, seed $SEED"
    if timeout -k 10 900 fsx -f "$INSIDE/fsx-$test.toml" -N "$FSX_OPERATIONS" -S "$SEED" -P "$log.artifacts" "$base/file" \
        >"$log" 2>&1; then
        record fsx "$config" "$test" pass "seed $SEED"
    else
        record fsx "$config" "$test" fail "seed $SEED: $(grep -v '^note:' "$log" | tail -n 1 | tr '\t' ' ')"
    fi
    tidy "$base"
}

# suite_stress CONFIG DIRECTORY
suite_stress() {
    local config=$1 base=$2/stress stressor
    for stressor in $STRESSORS; do
        answers stress-ng "$config" "$2" && mkdir -p "$base" || return
        stress_one "$config" "$base" "$stressor"
        tidy "$base"
        if [ "$config" != bare ] && outcome_was "$config" "$stressor" fail && ! outcome_was bare "$stressor" fail; then
            try_bare_again "$stressor"
        fi
    done
}

# outcome_was CONFIG STRESSOR OUTCOME
outcome_was() { grep -qF "$(printf 'stress-ng\t%s\t%s\t%s\t%s\t' "$SOURCE" "$@")" "$RESULTS"; }

# Some stressors fail now and then on any file system: a failure counts only where the bare source stands five more tries.
try_bare_again() {
    local base=/mnt/$SOURCE/stress-again
    for _ in 1 2 3 4 5; do
        mkdir -p "$base"
        stress_one bare-again "$base" "$1"
        tidy "$base"
        ! outcome_was bare-again "$1" fail || break
    done
}

# The bounds keep a stressor's files small enough that it gets to its checks in the time it has.
stress_options() {
    case $1 in
    hdd) say --hdd-bytes 64M ;;
    hdd-direct) say --hdd-bytes 64M --hdd-opts direct,wr-rnd,rd-rnd ;;
    iomix) say --iomix-bytes 64M ;;
    readahead) say --readahead-bytes 64M ;;
    revio) say --revio-bytes 64M ;;
    mmap-file) say --mmap-file --mmap-bytes 32M ;;
    esac
}

stress_one() {
    local config=$1 base=$2 stressor=$3 log="$LOGS/$SOURCE-$1-stress-$3" options status
    read -ra options <<<"$(stress_options "$stressor")"
    case $stressor in
    hdd-direct) options=(--hdd 2 "${options[@]}") ;;
    mmap-file) options=(--mmap 2 "${options[@]}") ;;
    *) options=("--$stressor" 2 "${options[@]}") ;;
    esac
    # Some of it makes files where it was started.
    (
        cd "$base" && timeout -k 10 $((STRESS_SECONDS + 60)) stress-ng --temp-path "$base" \
            --timeout "${STRESS_SECONDS}s" --verify "${options[@]}"
    ) >"$log" 2>&1
    status=$?
    case $status in
    0) if grep -q 'skipping stress' "$log"; then
        record stress-ng "$config" "$stressor" skip "$(stress_said 'skipping stress' "$log")"
    else
        record stress-ng "$config" "$stressor" pass
    fi ;;
    # No resource, not implemented.
    3 | 4) record stress-ng "$config" "$stressor" skip "$(stress_said 'skipping\|out of\|not ' "$log")" ;;
    124 | 137) record stress-ng "$config" "$stressor" fail "did not end: still running 60 s after its time" ;;
    *) record stress-ng "$config" "$stressor" fail "$(stress_said 'fail:' "$log") (status $status)" ;;
    esac
}

stress_said() { grep -m 1 -e "$1" "$2" | sed 's/^stress-ng: [a-z]*: *\[[0-9]*\] *//' | tr '\t' ' '; }
