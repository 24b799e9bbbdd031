# Judges a run: each test on the served directory is held against the bare source and the table of expected exclusions.
# Reads `expected`, then the results (suite, source, configuration, test, outcome, detail; tab-separated) in any order;
# the configurations `bare` and `bare-again` (further tries) are the bare source. Writes the results with a verdict and a cause in front of them:
#   passed    failed    as-bare (bare does the same)    excluded (in the table, with its cause)    bare (the baseline)
#   skipped (a source that this machine cannot make)

function trim(text) { gsub(/^ +| +$/, "", text); return text }

function glob(text) {
    text = trim(text)
    gsub(/[.+^$(){}\[\]]/, "\\\\&", text)
    gsub(/\*/, ".*", text)
    return "^" text "$"
}

# The row of the table that excuses this result, or 0.
function excuse(suite, test, source, config,    i) {
    for (i = 1; i <= rows; i++)
        if (suite ~ on_suite[i] && test ~ on_test[i] && source ~ on_source[i] && config ~ on_config[i]) return i
    return 0
}

function judge(line,    field, key, row) {
    split(line, field, "\t")
    if (field[3] ~ /^bare/) return field[3] "\t"
    if (field[1] == "source") return "skipped\t"
    if (field[5] == "pass") {
        row = excuse(field[1], field[4], field[2], field[3])
        if (row) idle[row]++
        return "passed\t"
    }
    key = field[1] SUBSEP field[2] SUBSEP field[4]
    if (key in same) return "as-bare\t" same[key]
    row = excuse(field[1], field[4], field[2], field[3])
    if (row) { used[row]++; return "excluded\t" cause[row] }
    return "failed\t" (field[5] == "skip" ? "skipped here, but it runs on the bare source" : "")
}

FNR == NR {
    if ($0 ~ /^ *(#|$)/) next
    split($0, field, "|")
    rows++
    on_suite[rows] = glob(field[1]); on_test[rows] = glob(field[2])
    on_source[rows] = glob(field[3]); on_config[rows] = glob(field[4])
    cause[rows] = trim(field[5]); text[rows] = $0
    next
}

{
    split($0, field, "\t")
    lines[++count] = $0
    if (field[3] ~ /^bare/ && field[5] != "pass") {
        same[field[1] SUBSEP field[2] SUBSEP field[4]] = field[3] == "bare" ? "the bare source does the same" \
            : "the bare source does the same now and then"
    }
}

END {
    for (i = 1; i <= count; i++) print judge(lines[i]) "\t" lines[i]
    for (i = 1; i <= rows; i++)
        if (idle[i] && !used[i] && cause[i] !~ /^now and then/) print "note: this exclusion is no longer needed: " text[i] >"/dev/stderr"
}
