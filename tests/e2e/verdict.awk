# Excuses failures that `expected` names with their cause: FILES expected results.tsv -> the same lines with a verdict.
BEGIN { FS = OFS = "\t" }

function matches(pattern, text) {
    gsub(/[.+?()\[\]{}^$|\\]/, "\\\\&", pattern)
    gsub(/\*/, ".*", pattern)
    return text ~ ("^" pattern "$")
}

FNR == NR {
    if ($0 ~ /^#/ || $0 == "") next
    split($0, field, / *\| */)
    rule++
    scenario[rule] = field[1]; configuration[rule] = field[2]; cause[rule] = field[3]
    next
}

$3 == "failed" {
    for (i = 1; i <= rule; i++)
        if (matches(scenario[i], $2) && matches(configuration[i], $1)) { $3 = "excused"; $5 = cause[i]; break }
}

{ print }
