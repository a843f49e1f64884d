"""A modality worklist provider by pynetdicom.

In:  one JSON object as the only argument; keys below. Out: nothing; it runs until it is stopped.
Keys: port; items (each: accession, study, name, patient, step, modality, station, date); out (a file to which each question is written,
one JSON object a line); charset (0008,0005 of the answers); status (what every question is answered with, null for the items).
"""

import json
import sys

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityWorklistInformationFind

asked = json.loads(sys.argv[1])


def item(told):
    answer = Dataset()
    answer.SpecificCharacterSet = asked.get("charset", "ISO_IR 192")
    answer.AccessionNumber = told["accession"]
    answer.ReferringPhysicianName = "Referrer^R"
    answer.PatientName = told["name"]
    answer.PatientID = told["patient"]
    answer.PatientBirthDate = "19600229"
    answer.PatientSex = "F"
    answer.StudyInstanceUID = told["study"]
    answer.RequestedProcedureDescription = "Screening"
    answer.RequestedProcedureID = "RP-" + told["accession"]
    step = Dataset()
    step.Modality = told["modality"]
    step.ScheduledStationAETitle = told["station"]
    step.ScheduledProcedureStepStartDate = told["date"]
    step.ScheduledProcedureStepStartTime = "101500"
    step.ScheduledProcedureStepDescription = "Both eyes"
    step.ScheduledProcedureStepID = told["step"]
    answer.ScheduledProcedureStepSequence = [step]
    return answer


def matches(told, step):
    start, _, end = str(step.ScheduledProcedureStepStartDate).partition("-")
    return (
        (not step.Modality or step.Modality == told["modality"])
        and (not step.ScheduledStationAETitle or step.ScheduledStationAETitle == told["station"])
        and start <= told["date"] <= (end or start)
    )


def find(event):
    step = event.identifier.ScheduledProcedureStepSequence[0]
    with open(asked["out"], "a", encoding="utf-8") as out:
        question = {"modality": str(step.Modality), "station": str(step.ScheduledStationAETitle)}
        out.write(json.dumps(question | {"calling": event.assoc.requestor.ae_title}) + "\n")
    if asked.get("status") is not None:
        yield asked["status"], None
        return
    for told in asked["items"]:
        if matches(told, step):
            yield 0xFF00, item(told)


ae = AE(ae_title="RIS")
ae.add_supported_context(ModalityWorklistInformationFind)
ae.start_server(("127.0.0.1", asked["port"]), evt_handlers=[(evt.EVT_C_FIND, find)])
