# shellcheck shell=bash
# Which of stress-ng's stressors are run: all of its classes `filesystem` and `io`, whatever the installed version has in
# them, and some of other classes that work on files; less those that do not touch the directory under test.

also="mmap-file msync sendfile splice fault metamix truncate unlink hdd-direct"
elsewhere="bind-mount binderfs eventfd fanotify ioprio memfd procfs rawdev"

all_stressors() {
    {
        stress-ng --class 'filesystem?'
        stress-ng --class 'io?'
    } | sed 's/.*stressors: *//' | tr ' ' '\n' | cat - <(tr ' ' '\n' <<<"$also") | sort -u |
        grep -vxF -f <(tr ' ' '\n' <<<"$elsewhere") | grep -xF -f <(known_stressors)
}

# Reads stressors and keeps those that are named, all when none is.
only() { if [ -n "$1" ]; then grep -xF -f <(tr ' ' '\n' <<<"$1"); else cat; fi | tr '\n' ' '; }

# Variants of a stressor are ours: see stress_options.
known_stressors() { { stress-ng --stressors && echo mmap-file hdd-direct; } | tr ' ' '\n'; }
