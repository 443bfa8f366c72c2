# Sourced by the other scripts: steps with their time, and the installation of what is missing.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
cd "$root"

# step NAME COMMAND...: runs a command and says how long it took; the first one that fails ends the script.
step() {
    local from="$SECONDS"
    current="$1"
    shift
    echo "==> $current"
    # Not behind `||` or `if`: that would switch off `set -e` inside the functions that are run here.
    "$@"
    echo "<== $current: $((SECONDS - from)) s"
    current=""
}

current=""
trap 'status=$?; [ -z "$current" ] || echo "==> $current failed with status $status" >&2' EXIT

# need_cargo: ends the script with advice when there is no Rust toolchain.
need_cargo() {
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing: install Rust 1.95 or newer, with rustfmt and clippy" >&2
        exit 1
    fi
}

# install_missing COMMAND=PACKAGE...: installs the Debian packages of the commands that are not there.
install_missing() {
    local pair packages=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || packages+=("${pair#*=}")
    done
    # Debian ships python3 without what a virtual environment needs.
    if command -v python3 >/dev/null && ! python3 -c 'import ensurepip' 2>/dev/null; then
        packages+=(python3-venv)
    fi
    [ "${#packages[@]}" -gt 0 ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo -n)
    fi
    if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
        echo "please install, then run this again: ${packages[*]}" >&2
        return 1
    fi
    # A policy that forbids service starts: a memcached that comes up on port 11211 would be in the way of tiercache.
    local policy=/usr/sbin/policy-rc.d made_policy=no status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
        made_policy=yes
    fi
    {
        "${as_root[@]}" apt-get update -qq &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "${packages[@]}"
    } || status=$?
    if [ "$made_policy" = yes ]; then
        "${as_root[@]}" rm -f "$policy"
    fi
    return "$status"
}

# build_mutants: a debug build whose bugs and points of death are chosen by environment variables, at $mutants.
mutants="$target/tiercache-mutants"
build_mutants() {
    # With a test, and so with what tests need: else all dependencies were built once more, with other features.
    cargo build --locked --workspace --features full,mutants --bin tiercache --test it
    cp "$target/debug/tiercache" "$mutants"
}
