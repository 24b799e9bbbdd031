# shellcheck shell=bash
# Debian's package tools with a state of their own: what they fetch is unpacked into target/guest, and the system's
# packages, lists and settings stay as they are.

# private_apt STATE: makes the folder STATE and writes the settings that keep apt in it. With lines on standard input they
# are the only sources; without, the machine's own are used.
private_apt() {
    local state=$1 sources
    mkdir -p "$state/lists/partial" "$state/archives/partial" "$state/downloads"
    sources=$(cat)
    cat >"$state/apt.conf" <<-CONF
	Dir::State::lists "$state/lists";
	Dir::State::status "/dev/null";
	Dir::Cache "$state";
	Dir::Cache::archives "$state/archives";
	APT::Architecture "amd64";
	APT::Sandbox::User "";
	APT::Install-Recommends "false";
	APT::Get::Assume-Yes "true";
	Acquire::Retries "2";
	Acquire::http::Timeout "30";
	Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
	CONF
    if [ -n "$sources" ]; then
        printf '%s\n' "$sources" >"$state/sources.list"
        printf 'Dir::Etc::sourcelist "%s";\nDir::Etc::sourceparts "-";\n' "$state/sources.list" >>"$state/apt.conf"
    fi
    export APT_CONFIG=$state/apt.conf
}
