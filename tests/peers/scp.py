"""A DICOM receiver by pynetdicom that answers as it is told, for what a real archive does on its bad days.

In:  one JSON object as the only argument: port; out (a file that gets one JSON line for each C-STORE: instance, class, status);
     refuse (that many first stores are answered with `status`, for instance 0xA700, and not kept); status; only (storage classes
     accepted; all where absent); delay_ms (before each answer).
Runs until it is stopped.
"""

import json
import sys
import time

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

asked = json.loads(sys.argv[1])
answered = 0


def on_store(event):
    """Notes the instance, then answers."""
    global answered
    answered += 1
    time.sleep(asked.get("delay_ms", 0) / 1000)
    status = asked.get("status", 0xA700) if answered <= asked.get("refuse", 0) else 0x0000
    request = event.request
    row = {"sop_instance_uid": request.AffectedSOPInstanceUID, "sop_class_uid": request.AffectedSOPClassUID, "status": status}
    with open(asked["out"], "a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")
    return status


ae = AE(ae_title=asked.get("ae_title", "PEER"))
ae.maximum_pdu_size = asked.get("max_pdu", 16382)
ae.add_supported_context(Verification)
for class_uid in asked.get("only") or [context.abstract_syntax for context in AllStoragePresentationContexts]:
    ae.add_supported_context(class_uid, ALL_TRANSFER_SYNTAXES)
ae.start_server(("127.0.0.1", asked["port"]), block=True, evt_handlers=[(evt.EVT_C_STORE, on_store)])
