# The output of pjdfstest as lines of: test, pass|fail|skip, detail.
# A case is a line `name  ok|FAILED|skipped`; what follows it, indented, is its detail. The cases that need a remount
# are skipped here for another run to do them, so they are left out.

function flush_case() {
    if (test != "" && detail !~ /allow_remount/) print test "\t" outcome "\t" detail
    test = ""
}

BEGIN { outcomes["ok"] = "pass"; outcomes["FAILED"] = "fail"; outcomes["skipped"] = "skip" }

/^[a-z0-9_:]+ +(ok|FAILED|skipped)$/ {
    flush_case()
    test = $1
    outcome = outcomes[$2]
    detail = ""
    next
}

/^\t/ && test != "" && detail == "" { detail = $0; gsub(/\t/, "", detail) }

END { flush_case() }
