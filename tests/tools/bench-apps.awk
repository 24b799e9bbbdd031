# The tables of bench-apps: of the rounds of each program, pass and side the fastest counts, for what is not the
# program's own only adds to it.
# Reads: program|pass|side|wall us|CPU us|total opcode count opcode count...
BEGIN { FS = "|"; count = split(sides, side, ";") }
{
    row = $1 "|" $2
    if (!(row in seen)) { seen[row] = 1; rows[++lines] = row }
    key = row "|" $3
    if (!(key in wall) || $4 < wall[key]) wall[key] = $4
    if (!(key in cpu) || $5 < cpu[key]) cpu[key] = $5
    requests[key] = $6
}
function times(us) { return us >= 1e5 ? sprintf("%.0f", us / 1000) : sprintf("%.1f", us / 1000) }
function ratio(other, mine) { return mine > 0 && other > 0 ? sprintf("**%.2f**", other / mine) : "" }
END {
    print "### Real programs: wall time in milliseconds, and in brackets CPU time of the daemon\n"
    printf "| program | pass |"
    for (i = 1; i <= count; i++) printf " %s |", side[i]
    print " coherent to virtiofsd, times faster | auto | always to virtiofsd always |"
    printf "|---|---:|"
    for (i = 1; i <= count; i++) printf "---:|"
    print "---:|---:|---:|"
    for (n = 1; n <= lines; n++) {
        split(rows[n], part, "|")
        printf "| %s | %s |", part[1], part[2]
        for (i = 1; i <= count; i++) {
            key = rows[n] "|" side[i]
            printf (side[i] == "native" ? " %s |" : " %s (" times(cpu[key]) ") |"), times(wall[key])
        }
        peer = wall[rows[n] "|virtiofsd"]
        printf " %s | %s |", ratio(peer, wall[rows[n] "|coherent"]), ratio(peer, wall[rows[n] "|auto"])
        print " " ratio(wall[rows[n] "|virtiofsd always"], wall[rows[n] "|always"]) " |"
    }
    print "\n### Real programs: requests of the last pass\n"
    print "| program | pass | side | requests | of them |\n|---|---:|---|---:|---|"
    for (n = 1; n <= lines; n++) for (i = 1; i <= count; i++) {
        split(rows[n], part, "|")
        if (side[i] == "native" || ((part[1] "|" (part[2] + 1)) in seen)) continue
        total = list = requests[rows[n] "|" side[i]]
        sub(/ .*/, "", total)
        sub(/^[0-9]* ?/, "", list)
        printf "| %s | %s | %s | %s | %s |\n", part[1], part[2], side[i], total, list
    }
}
