# The table of a run in Markdown: FILES scenarios (rows of the table) and verdicts.tsv. Reasons stand below it, numbered.
FNR == NR { split($0, field, "|"); order[++rows] = field[1]; about[field[1]] = field[5]; known[field[1]] = 1; next }

{
    split($0, field, "\t")
    if (!(field[1] in column)) { column[field[1]] = ++columns; head[columns] = field[1] }
    if (!known[field[2]]) { known[field[2]] = 1; order[++rows] = field[2] }
    used[field[2]] = 1
    cell[field[2], field[1]] = text(field[3], field[4], field[5])
}

function note(why) {
    if (!(why in number)) { number[why] = ++notes; reason[notes] = why }
    return number[why]
}

function text(outcome, seconds, why) {
    if (outcome == "passed") return seconds + 0 > 0 ? sprintf("%.0f s", seconds) : "ok"
    if (outcome == "skipped") return "(" note(why) ")"
    if (outcome == "excused") return "excused (" note(why) ")"
    return (outcome == "failed" ? "**failed** (" : "differs (") note(why) ")"
}

END {
    line = "| |"; rule = "|---|"
    for (c = 1; c <= columns; c++) { line = line " " head[c] " |"; rule = rule "---|" }
    print line "\n" rule
    for (r = 1; r <= rows; r++) {
        if (!used[order[r]]) continue
        line = "| " order[r] " |"
        for (c = 1; c <= columns; c++) line = line " " cell[order[r], head[c]] " |"
        print line
    }
    if (notes) print ""
    for (n = 1; n <= notes; n++) print n ". " reason[n]
}
