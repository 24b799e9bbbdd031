# shellcheck shell=bash
# A tree for real programs to go through, and what they asked of a bridge meanwhile.

# make_tree TREE DIRECTORIES: ten small files in each, a makefile whose only target is up to date, a package with a build
# script that names no files, so that cargo looks at all of them, and a repository if there is git.
make_tree() {
    local tree=$1 d f
    for ((d = 0; d < $2; d++)); do
        mkdir -p "$tree/d$((d / 50))/e$d"
        for f in 0 1 2 3 4 5 6 7 8 9; do echo "file $f of directory $d" >"$tree/d$((d / 50))/e$d/f$f.c"; done
    done
    # shellcheck disable=SC2016 # $(wildcard) is make's
    printf 'all: out\nout: $(wildcard d*/e*/*.c)\n\ttouch out\n' >"$tree/Makefile"
    touch "$tree/out"
    printf '[package]\nname = "timed"\nversion = "0.1.0"\nedition = "2021"\n\n[workspace]\n' >"$tree/Cargo.toml"
    mkdir "$tree/src"
    echo 'fn main() {}' | tee "$tree/build.rs" >"$tree/src/main.rs"
    printf '/target\n/out\n' >"$tree/.gitignore"
    command -v git >/dev/null || return 0
    git -C "$tree" init -q
    git -C "$tree" config gc.auto 0
    git -C "$tree" add . && commit "$tree" tree
}

commit() { git -C "$1" -c user.name=bench -c user.email=bench@localhost commit -qm "$2"; }

# inserts COUNT: so many transactions for SQLite.
inserts() {
    local number
    echo 'CREATE TABLE t(a, b);'
    for ((number = 0; number < $1; number++)); do echo "BEGIN; INSERT INTO t VALUES($number, 'some text'); COMMIT;"; done
}

# take_counts PID FILE: the requests that a bridge carried since the last time, in a line: all, and by opcode.
take_counts() {
    rm -f "$2"
    kill -USR1 "$1"
    for _ in {1..200}; do grep -q notifications "$2" 2>/dev/null && break; sleep 0.01; done
    awk '$1 == "total" { total = $2; next }
         NF == 2 && $2 > 0 && $1 != "notifications" && $1 != "malformed" { list = list " " $1 " " $2 }
         END { print total list }' "$2"
}
