#!/usr/bin/env python3
"""Writes code_meanings.csv: meanings of standard codes that copies may show; run by hand, never by a build.

In: pydicom's context groups (ophthalmology CID 4202 to 4211, laterality 244, de-identification 7050, procedures 100).
A code that is not listed stays in a copy; its meaning is then replaced by its value.
"""

import pathlib

from pydicom.sr.codedict import codes

rows = set()
for cid in [*range(4202, 4212), 244, 7050, 100]:
    try:
        group = getattr(codes, f"cid{cid}")
    except AttributeError:
        continue
    for code in group.concepts.values():
        if "," not in code.meaning + code.value and code.meaning.isascii() and len(code.meaning) <= 64:
            rows.add(f"{code.scheme_designator},{code.value},{code.meaning}")
head = ["# scheme, value, meaning: DICOM PS3.16, by way of pydicom 3.0.2 (MIT)."]
(pathlib.Path(__file__).parent / "code_meanings.csv").write_text("\n".join(head + sorted(rows)) + "\n")
print(len(rows), "codes")
