#!/usr/bin/env bash
# Installs what `make bench` measures itself against: OpenVINO's benchmark_app, in runtime/bench-venv. Quick when it is there.
#
# Promise: in a folder of its own, because the box must run on the five files that fetch-openvino.sh took, and not on this whole wheel.
set -euo pipefail
step=bench
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The functions of lib.sh work on $venv.
venv=$root/runtime/bench-venv
mkdir -p "$root/runtime"
venv_install "$root/scripts/requirements-bench.txt"
"$venv/bin/benchmark_app" --help >/dev/null || die "benchmark_app does not run on this machine"
say "benchmark_app is there"
