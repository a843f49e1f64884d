"""A modality or viewer by pynetdicom: storage commitment, procedure steps, user identity, roles, many contexts.

In:  one JSON object as the only argument: do (see below), port, called, calling, and what each needs.
     commit: files (stored first), references ([class, instance]), transaction, wait_s (listen on the same association so long).
             reply_port (where given: listen there before the request, release after it, and wait there for the report).
     listen: reply_port, wait_s (wait for one report there).
     step:   instance, studies ([study]), instances ([class, instance]).
     user:   username, passcode.
     many:   filler (that many contexts of classes that no box stores), files; roles for every class, an asynchronous
             operations window and a user identity, as some eye devices send them.
Out: one JSON object: what was negotiated, what each request was answered, which reports came.
"""

import json
import sys
import threading

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation, UserIdentityNegotiation
from pynetdicom.sop_class import ModalityPerformedProcedureStep, StorageCommitmentPushModel, Verification

COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
asked = json.loads(sys.argv[1])
reports, heard = [], threading.Event()


def on_report(event):
    """Notes a report and takes it."""
    information = event.event_information
    listed = lambda name: [str(item.ReferencedSOPInstanceUID) for item in information.get(name, [])]
    reports.append(
        {
            "event_type": event.event_type,
            "transaction": str(information.TransactionUID),
            "committed": listed("ReferencedSOPSequence"),
            "failed": listed("FailedSOPSequence"),
            "reasons": [item.FailureReason for item in information.get("FailedSOPSequence", [])],
            "same_association": event.assoc.is_requestor,
        }
    )
    heard.set()
    return 0x0000, None


def entity():
    ae = AE(ae_title=asked.get("calling", "CART"))
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    return ae


def listener():
    """Listens for the box, which proposes itself as SCP."""
    ae = entity()
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    return ae.start_server(("127.0.0.1", asked["reply_port"]), block=False, evt_handlers=handlers)


def associate(ae, negotiation=()):
    return ae.associate(
        "127.0.0.1",
        asked["port"],
        ae_title=asked.get("called", "FOVEA"),
        ext_neg=list(negotiation),
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)],
    )


def items(pairs):
    made = []
    for class_uid, instance_uid in pairs:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
        made.append(item)
    return Sequence(made)


def commit():
    objects = [dcmread(path) for path in asked.get("files", [])]
    ae = entity()
    ae.add_requested_context(StorageCommitmentPushModel)
    for class_uid, syntax in sorted({(made.SOPClassUID, made.file_meta.TransferSyntaxUID) for made in objects}):
        ae.add_requested_context(class_uid, syntax)
    server = listener() if "reply_port" in asked else None
    association = associate(ae)
    told = {"stored": [association.send_c_store(made).get("Status") for made in objects]}
    request = Dataset()
    request.TransactionUID = asked["transaction"]
    request.ReferencedSOPSequence = items(asked["references"])
    status, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, COMMITMENT_INSTANCE)
    told["asked"] = status.get("Status")
    if server:
        association.release()
    heard.wait(asked.get("wait_s", 0))
    if server:
        server.shutdown()
    else:
        association.release()
    return told


def listen():
    server = listener()
    heard.wait(asked["wait_s"])
    server.shutdown()
    return {}


def step():
    ae = entity()
    ae.add_requested_context(ModalityPerformedProcedureStep)
    association = associate(ae)
    begun, over = Dataset(), Dataset()
    scheduled = []
    for study in asked["studies"]:
        item = Dataset()
        item.StudyInstanceUID = study
        scheduled.append(item)
    begun.ScheduledStepAttributesSequence = Sequence(scheduled)
    begun.PerformedProcedureStepStatus = "IN PROGRESS"
    begun.PatientName, begun.PatientID = "Step^Patient", "STEP"
    begun.PerformedSeriesSequence = Sequence([])
    series = Dataset()
    series.SeriesInstanceUID = "1.2.3"
    series.ReferencedImageSequence = items(asked["instances"])
    over.PerformedProcedureStepStatus = "COMPLETED"
    over.PerformedSeriesSequence = Sequence([series])
    create = lambda: association.send_n_create(begun, ModalityPerformedProcedureStep, asked["instance"])[0].get("Status")
    change = lambda: association.send_n_set(over, ModalityPerformedProcedureStep, asked["instance"])[0].get("Status")
    told = {"statuses": [create(), create(), change(), change()]}
    association.release()
    return told


def user():
    ae = entity()
    ae.add_requested_context(Verification)
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.positive_response_requested = 2, True
    identity.primary_field, identity.secondary_field = asked["username"].encode(), asked["passcode"].encode()
    association = associate(ae, [identity])
    told = {"established": association.is_established, "rejected": association.is_rejected}
    if association.is_established:
        told["confirmed"] = association.acceptor.user_identity is not None
        association.release()
    return told


def many():
    objects = [dcmread(path) for path in asked["files"]]
    ae = entity()
    classes = [f"1.2.840.10008.5.1.4.999.{number}" for number in range(asked["filler"])]
    for class_uid in classes:
        ae.add_requested_context(class_uid)
    for class_uid, syntax in sorted({(made.SOPClassUID, made.file_meta.TransferSyntaxUID) for made in objects}):
        classes.append(class_uid)
        ae.add_requested_context(class_uid, syntax)
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 5
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"operator"
    roles = [build_role(class_uid, scu_role=True, scp_role=True) for class_uid in sorted(set(classes))]
    association = associate(ae, [*roles, window, identity])
    told = {
        "established": association.is_established,
        "proposed": len(ae.requested_contexts),
        "accepted": len(association.accepted_contexts),
        "window": list(association.acceptor.asynchronous_operations),
        "stored": [association.send_c_store(made).get("Status") for made in objects],
    }
    association.release()
    return told


told = {"commit": commit, "listen": listen, "step": step, "user": user, "many": many}[asked["do"]]()
print(json.dumps({**told, "reports": reports}))
