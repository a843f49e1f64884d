"""A DICOM sender by pynetdicom, for what DCMTK's senders cannot be told to do.

In:  one JSON object as the only argument; keys below. Out: one JSON object: what was negotiated and what each request was answered.
Keys: port; called, calling (AE titles); max_pdu (what we say that we take, 0 for no limit); filler (that many contexts of classes that
no box stores, placed first); roles (propose SCP/SCU role selection for each storage class, as some eye devices do); identity
(null, "name", "passcode"); echo (bool); files (Part 10 files to store, one by one); fake (transfer syntaxes: a small
multi-frame object is made in each, with bytes that no decoder would take: storing must not need a decoder).
"""

import json
import sys

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, build_role
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import Verification

SECONDARY_CAPTURE_COLOR = "1.2.840.10008.5.1.4.1.1.7.4"


def fake_object(syntax, seed):
    """A multi-frame true-colour secondary capture whose one fragment is no picture."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.SOPClassUID = SECONDARY_CAPTURE_COLOR
    made.SOPInstanceUID = generate_uid(entropy_srcs=["fovea fake", syntax, seed])
    made.StudyInstanceUID = generate_uid(entropy_srcs=["fovea fake study", seed])
    made.SeriesInstanceUID = generate_uid(entropy_srcs=["fovea fake series", seed])
    made.PatientName, made.PatientID, made.Modality = "Fake^Object", "FAKE", "OT"
    made.Rows = made.Columns = 64
    made.NumberOfFrames, made.SamplesPerPixel, made.PhotometricInterpretation = 1, 3, "YBR_PARTIAL_420"
    made.PlanarConfiguration, made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 0, 8, 8, 7, 0
    made.PixelData = encapsulate([bytes(range(256)) * 4])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return made


def main():
    asked = json.loads(sys.argv[1])
    ae = AE(ae_title=asked.get("calling", "PYNETDICOM"))
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    objects = [dcmread(path, force=False) for path in asked.get("files", [])]
    objects += [fake_object(syntax, asked.get("seed", "0")) for syntax in asked.get("fake", [])]

    for number in range(asked.get("filler", 0)):
        ae.add_requested_context(f"1.2.840.10008.5.1.4.999.{number}")
    ae.add_requested_context(Verification)
    pairs = sorted({(made.SOPClassUID, made.file_meta.TransferSyntaxUID) for made in objects})
    for class_uid, syntax in pairs:
        # One context for each syntax: the sender's data are in that one and no other.
        ae.add_requested_context(class_uid, syntax)

    negotiation = []
    if asked.get("roles"):
        negotiation += [build_role(class_uid, scu_role=True, scp_role=True) for class_uid in sorted({pair[0] for pair in pairs})]
    if asked.get("identity"):
        identity = UserIdentityNegotiation()
        identity.user_identity_type = 2 if asked["identity"] == "passcode" else 1
        identity.primary_field = b"operator"
        if identity.user_identity_type == 2:
            identity.secondary_field = b"secret"
        negotiation.append(identity)

    association = ae.associate(
        "127.0.0.1",
        asked["port"],
        ae_title=asked.get("called", "FOVEA"),
        max_pdu=asked.get("max_pdu", 16382),
        ext_neg=negotiation,
    )
    told = {"established": association.is_established, "rejected": association.is_rejected, "stored": []}
    if association.is_established:
        told["accepted"] = len(association.accepted_contexts)
        told["peer_max_pdu"] = association.acceptor.maximum_length
        if asked.get("echo"):
            told["echo"] = association.send_c_echo().get("Status")
        for number, made in enumerate(objects):
            status = association.send_c_store(made, msg_id=number + 1)
            told["stored"].append(
                {"sop_instance_uid": made.SOPInstanceUID, "syntax": made.file_meta.TransferSyntaxUID, "status": status.get("Status")}
            )
        association.release()
        told["released"] = association.is_released
    print(json.dumps(told))


main()
