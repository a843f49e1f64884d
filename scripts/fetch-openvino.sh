#!/usr/bin/env bash
# Fetches the OpenVINO runtime that fovea-worker loads, and nothing else of it.
#
# In:  the PyPI wheel `openvino`, one version, pinned by SHA-256.
# Out: runtime/openvino/ (git-ignored), or the folder named as first argument: the five libraries that an INT8
#      model on a CPU needs (82 MB of the wheel's 180 MB), their licences, and SHA256SUMS, which the worker checks
#      before it loads anything.
# Promise: the folder is either whole and verified or not there. A second run only verifies.
set -euo pipefail

version=2026.4.1
wheel_sha256=2d22b1da03f7caf74df30e9f6417d0ab2f637e4a38e08e1dcd294d2c37407aaf

# sha256, then the path inside the folder. This list is also what gets unpacked.
read -r -d '' sums <<'SUMS' || true
9b9a80ac1f18e07b13ed54459d9a865bcfe9dc170dbf8fe740c2974b85ecedc1  libopenvino.so.2641
d2d0836d422b21fc5da2739af0d6035df3fc6dd5e4756402eb848974edecf8a5  libopenvino_c.so.2641
6599e3dd300d047b5ed72f8e48101c5f312c25321f35f57f803641ff8372900b  libopenvino_intel_cpu_plugin.so
554e9fd3d4a0fbc587c14379464b2324e24b8ea736cfb749ad2cd9e74dfc09e0  libopenvino_ir_frontend.so.2641
ac9518497a4f2cb6729792730f145ee58367316031511923fef263c9ac81ca61  libtbb.so.12
c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4  licenses/LICENSE
f1b16991dfe8488f3f5f07cccba575c31c91175a9f2c8d9e1569665f86e0b2f6  licenses/licensing/onednn_third-party-programs.txt
b10997cc50652ba6ab365e3bc43e13057681cd4a56533b46171529bd249749f3  licenses/licensing/onetbb_third-party-programs.txt
caf4040a8c3043c9fdc7638ccc61078b40ce623e69e3bcd2bc544ae70a368b2f  licenses/licensing/runtime-third-party-programs.txt
SUMS

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${1:-$root/runtime/openvino}

say() { printf 'openvino: %s\n' "$*"; }
die() { printf 'openvino: %s\n' "$*" >&2; exit 1; }

# True when every file of the list is there with the right hash, and SHA256SUMS is the list.
whole() {
    [ -f "$1/SHA256SUMS" ] && [ "$(cat "$1/SHA256SUMS")" = "$sums" ] && (cd "$1" && sha256sum --check --quiet --strict SHA256SUMS) >/dev/null 2>&1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Prints the python to call pip with. A bare Debian has python3 without pip; a throw-away virtual environment brings one.
python_with_pip() {
    if python3 -m pip --version >/dev/null 2>&1; then
        echo python3
        return
    fi
    if ! python3 -m venv "$work/venv" >/dev/null 2>&1; then
        say "installing python3-venv (pip is missing)" >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y python3-venv >/dev/null
        rm -rf "$work/venv"
        python3 -m venv "$work/venv"
    fi
    echo "$work/venv/bin/python3"
}

if whole "$target"; then
    say "$version is in $target, verified"
    exit 0
fi

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "only Linux on x86_64 is pinned here, this is $(uname -s) on $(uname -m)"
command -v python3 >/dev/null || die "python3 is needed"

mkdir -p "$(dirname "$target")"
# Beside the target, so that the last step is a rename on one file system.
work=$(mktemp -d "$(dirname "$target")/.openvino.XXXXXX")
trap 'rm -rf "$work"' EXIT

python=$(python_with_pip)
say "downloading the wheel, $version, 59 MB"
printf 'openvino==%s --hash=sha256:%s\n' "$version" "$wheel_sha256" >"$work/requirements.txt"
# The wheel is chosen by name, not by the python at hand: only its libraries are used.
"$python" -m pip --disable-pip-version-check --quiet download --no-deps --only-binary=:all: --require-hashes \
    --implementation cp --python-version 311 --abi cp311 --platform manylinux_2_28_x86_64 \
    --dest "$work/wheel" -r "$work/requirements.txt" || die "the download failed; run this script again"

say "unpacking $(wc -l <<<"$sums") files"
mkdir "$work/new"
printf '%s\n' "$sums" >"$work/new/SHA256SUMS"
python3 - "$work"/wheel/openvino-*.whl "$work/new" <<'PYTHON'
import pathlib, shutil, sys, zipfile
wheel, out = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
dist_info = next(name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
for line in (out / "SHA256SUMS").read_text().splitlines():
    path = line.split("  ", 1)[1]
    member = f"{dist_info}/{path}" if path.startswith("licenses/") else f"openvino/libs/{path}"
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    with wheel.open(member) as source, open(out / path, "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON
whole "$work/new" || die "the unpacked files do not have the pinned hashes"
find "$work/new" -type f -exec chmod 0444 {} +
chmod 0755 "$work/new"

rm -rf "$target"
mv "$work/new" "$target"
say "$version is in $target, verified"
