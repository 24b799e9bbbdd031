# The verdicts of a run (see verdict.awk) as Markdown: a table of counts, then everything that did not pass, with its cause.

# A detail may hold a temporary path or a process number; only its first words tell findings apart.
function shorten(text) { return length(text) > 110 ? substr(text, 1, 107) "..." : text }

function print_counts(    s, r, key) {
    print "| suite | source | configuration | passed | not passed, as on the bare source | excluded | failed |"
    print "|---|---|---|---|---|---|---|"
    for (s = 1; s <= suites; s++)
        for (r = 1; r <= rows[suite_at[s]]; r++) {
            key = row_at[suite_at[s], r]
            split(key, part, SUBSEP)
            printf "| %s | %s | %s | %d | %d | %d | %d |\n", part[1], part[2], part[3], \
                n[key, "passed"], n[key, "as-bare"], n[key, "excluded"], n[key, "failed"]
        }
}

# Tests that say the same at the same places share a row; failures come first.
function print_findings(    i, v, part, same, group, tests, groups, order) {
    for (i = 1; i <= found; i++) {
        split(finding_at[i], part, SUBSEP)
        same = part[1] SUBSEP part[3] SUBSEP where[finding_at[i]] SUBSEP what[finding_at[i]] SUBSEP part[4]
        if (!(same in tests)) group[++groups] = same
        tests[same] = tests[same] (same in tests && tests[same] != "" ? ", " : "") part[2]
    }
    print "\n| suite | verdict | where | what it said | cause | tests |"
    print "|---|---|---|---|---|---|"
    split("failed excluded as-bare skipped", order, " ")
    for (v = 1; v <= 4; v++) for (i = 1; i <= groups; i++) {
        split(group[i], part, SUBSEP)
        if (part[2] != order[v]) continue
        printf "| %s | %s | %s | %s | %s | %s |\n", part[1], part[2], part[3], part[4], part[5], tests[group[i]]
    }
}

BEGIN { FS = "\t" }

{
    if ($1 == "bare-again") next
    verdict = $1; suite = $3; source = $4; config = $5; test = $6; outcome = $7; detail = $8
    if (!(suite in rows)) suite_at[++suites] = suite
    key = suite SUBSEP source SUBSEP config
    if (!(key in seen)) { seen[key] = 1; row_at[suite, ++rows[suite]] = key }
    if (verdict == "bare") verdict = outcome == "pass" ? "passed" : "as-bare"
    n[key, verdict]++
    if ($1 == "bare" || verdict == "passed") next
    finding = suite SUBSEP test SUBSEP verdict SUBSEP $2
    if (!(finding in where)) { finding_at[++found] = finding; gsub(/\|/, "\\|", detail); what[finding] = outcome ": " shorten(detail) }
    where[finding] = where[finding] (where[finding] == "" ? "" : ", ") source "/" config
}

END {
    print_counts()
    if (found) print_findings(); else print "\nEverything passed."
}
