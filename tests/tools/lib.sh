# shellcheck shell=bash
# What every script of tests/ shares: where things are, how a skip is said, how root is asked for.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
# A CI cache may keep the tools outside the checkout.
TOOLS=${FERRYFS_TOOLS:-$TARGET/tools}
# mkfs and mount live in sbin, which Debian leaves out of a plain user's path.
PATH=$TOOLS/bin:$TOOLS/python/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export ROOT TARGET TOOLS PATH

PASSED=0 FAILED=0 SKIPPED=0

say() { printf '%s\n' "$*"; }

# skip WHAT REASON: one line that the summary of `make test` repeats.
skip() {
    SKIPPED=$((SKIPPED + 1))
    say "skipped: $1: $2"
}

# check NAME COMMAND...: one thing that passes or fails; its output is shown only when it fails.
check() {
    local name=$1 log
    shift
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        PASSED=$((PASSED + 1))
        say "ok: $name"
    else
        FAILED=$((FAILED + 1))
        cat "$log"
        say "FAILED: $name"
    fi
    rm -f "$log"
}

# conclude NAME: the one line that says how it went, and the exit status. `make test` reads this line.
conclude() {
    say "$1: $PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" -eq 0 ]
}

# as_root COMMAND...: runs it as root, or fails when there is no way to without asking for a password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

can_be_root() { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
