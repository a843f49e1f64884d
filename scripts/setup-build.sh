#!/usr/bin/env bash
# Installs what the build needs and the machine lacks. Quick when nothing is missing.
#
# In:  a Debian 12 with git, make and cargo; root or sudo.
# Out: a C compiler and linker, a python environment in .venv (for pip, which fetches the pinned wheels), the OpenVINO runtime
#      in runtime/openvino.
# Promise: a second run changes nothing; nothing is installed that the build does not use.
set -euo pipefail
step=build
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rust_min=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

command -v cargo >/dev/null || die "cargo is missing: install Rust $rust_min or later first"
found=$(cargo --version | cut -d' ' -f2)
[ "$(printf '%s\n' "$rust_min" "$found" | sort -V | head -n 1)" = "$rust_min" ] || die "cargo $found is too old, Rust $rust_min is needed"
command -v cc >/dev/null && command -v c++ >/dev/null || apt_ensure gcc g++ libc6-dev
venv_ensure
PATH=$venv/bin:$PATH "$root/scripts/fetch-openvino.sh"
