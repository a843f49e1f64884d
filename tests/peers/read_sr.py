"""Reads a structured report with highdicom, the third reader beside dciodvfy and dsrdump.

In:  the path of a Part 10 file. Out: one JSON object: document flags, title, and for each image-level group of TID 1500 its tracking
     identifier, evaluations, measurements and the images it is about. An unreadable report is a traceback and exit status 1.
"""

import json
import sys

from highdicom.sr import MeasurementReport, srread


def code(item):
    return {"scheme": item.scheme_designator, "value": item.value, "meaning": item.meaning}


report = srread(sys.argv[1])
content = report.content
assert isinstance(content, MeasurementReport), f"the content is {type(content).__name__}, not a TID 1500 measurement report"

# All items in document order, whatever their depth: what a person would see.
rows = []


def walk(items, depth):
    for item in items:
        row = {"depth": depth, "type": item.value_type.value, "name": code(item.name)}
        if item.value_type.value == "CODE":
            row["value"] = code(item.value)
        elif item.value_type.value in ("TEXT", "UIDREF", "PNAME"):
            row["value"] = str(item.value)
        elif item.value_type.value == "NUM":
            row["value"], row["unit"] = float(item.value), code(item.unit)
        elif item.value_type.value == "IMAGE":
            row["value"] = item.referenced_sop_instance_uid
        rows.append(row)
        walk(getattr(item, "ContentSequence", None) or [], depth + 1)


walk(content, 0)

groups = []
for group in content.get_image_measurement_groups():
    groups.append(
        {
            "tracking_uid": group.tracking_uid,
            "evaluations": [{"name": code(e.name), "value": code(e.value)} for e in group.get_qualitative_evaluations()],
            "measurements": [{"name": code(m.name), "value": float(m.value), "unit": code(m.unit)} for m in group.get_measurements()],
        }
    )

evidence = []
for study in report.get("CurrentRequestedProcedureEvidenceSequence", []):
    for series in study.ReferencedSeriesSequence:
        evidence += [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence]

print(
    json.dumps(
        {
            "sop_class_uid": report.SOPClassUID,
            "sop_instance_uid": report.SOPInstanceUID,
            "study_uid": report.StudyInstanceUID,
            "modality": report.Modality,
            "completion": report.CompletionFlag,
            "verification": report.VerificationFlag,
            "preliminary": report.get("PreliminaryFlag"),
            "patient_id": report.get("PatientID"),
            "title": code(content[0].name),
            "groups": groups,
            "items": rows,
            "evidence": evidence,
        }
    )
)
