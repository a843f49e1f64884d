# Shared by the set-up scripts; sourced, never run.
#
# Promise: nothing here asks a question, starts a service or changes what is already right. Root or sudo, Debian's apt.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf '%s: %s\n' "$step" "$*"; }
die() { printf '%s: %s\n' "$step" "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs those of the named packages that are missing. `package=1.2` also demands that upstream version, in any Debian revision:
# Debian fixes bugs under a new revision, but another upstream version may answer differently from what the tests were written against.
apt_ensure() {
    local missing=() want name version found
    for want in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "${want%%=*}" 2>/dev/null)" = installed ] || missing+=("${want%%=*}")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        command -v apt-get >/dev/null || die "needs the Debian packages ${missing[*]}, and there is no apt-get here"
        say "installing ${missing[*]}"
        apt_quietly "${missing[@]}"
    fi
    for want in "$@"; do
        name=${want%%=*} version=${want#*=}
        [ "$name" = "$want" ] && continue
        found=$(dpkg-query -W -f '${Version}' "$name")
        case $found in
            "$version"[-+~]* | "$version") ;;
            *) die "$name $found is installed, $version is needed (Debian 12 has it)" ;;
        esac
    done
}

# Runs apt-get with its output kept aside and shown only when it fails. No daemon that a package brings is started: Debian asks
# policy-rc.d, and ours (unless the machine has one already) says no for as long as the installation runs.
apt_quietly() {
    local log policy=/usr/sbin/policy-rc.d ours=0 status=0
    log=$(mktemp)
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        ours=1
    fi
    {
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
    } >"$log" 2>&1 || status=$?
    [ "$ours" = 0 ] || as_root rm -f "$policy"
    [ "$status" = 0 ] || { cat "$log" >&2; rm -f "$log"; die "apt-get failed (above)"; }
    rm -f "$log"
}

# True when nothing starts the named service at boot: neither a unit link nor a System V link is there.
service_off() {
    local links=(/etc/systemd/system/*.wants/"$1".service /etc/rc[2-5].d/S[0-9][0-9]"$1")
    local link
    for link in "${links[@]}"; do [ ! -e "$link" ] && [ ! -L "$link" ] || return 1; done
}

# Makes .venv with a pip in it. Debian's own python where there is one, because python3-venv belongs to it.
venv_ensure() {
    [ -x "$venv/bin/python3" ] && "$venv/bin/python3" -m pip --version >/dev/null 2>&1 && return
    local python=python3
    [ -x /usr/bin/python3 ] && python=/usr/bin/python3
    command -v "$python" >/dev/null || apt_ensure python3
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then apt_ensure python3-venv; fi
    say "making .venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
}

# Installs a requirements file, hash-pinned, into .venv; does nothing when the same file was installed before.
venv_install() {
    local file=$1 stamp
    stamp=$venv/.installed-$(basename "$file")
    venv_ensure
    sha256sum "$file" | cmp -s - "$stamp" 2>/dev/null && return
    say "installing $(grep -cE '^[A-Za-z0-9].*==' "$file") python packages from $(basename "$file")"
    "$venv/bin/python3" -m pip --quiet --disable-pip-version-check install --require-hashes --only-binary=:all: -r "$file"
    sha256sum "$file" >"$stamp"
}
