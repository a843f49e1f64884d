"""A DICOMweb client by dicomweb-client, for what viewers and web senders do.

In:  one JSON object as the only argument; keys below. Out: one JSON object with an answer to each thing asked.
Keys: url; token (a bearer token, none without); authority (PEM of the authority to believe, for https); store (Part 10 files);
study, series, instance (what to fetch); frames (numbers from 1); filters (of the search); bulk (tag of a value to fetch by its address).
"""

import hashlib
import io
import json
import sys
import warnings
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread, dcmwrite

warnings.simplefilter("ignore")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def whole(data_set):
    """The data set as bytes, without the head that each writer makes anew."""
    out = io.BytesIO()
    dcmwrite(out, data_set, enforce_file_format=True)
    out.seek(0)
    again = dcmread(out)
    return {str(element.tag): sha256(repr(element.value).encode()) for element in again}


def main():
    asked = json.loads(sys.argv[1])
    session = requests.Session()
    session.trust_env = False  # a bundle of authorities in the environment would win over the one we name
    if asked.get("authority"):
        session.verify = asked["authority"]
    headers = {"Authorization": f"Bearer {asked['token']}"} if asked.get("token") else {}
    client = DICOMwebClient(asked["url"], session=session, headers=headers)
    client.host = urlsplit(asked["url"]).netloc  # what it says as Host: the library leaves the port out
    answers = {}
    if asked.get("store"):
        stored = client.store_instances([dcmread(path) for path in asked["store"]])
        answers["stored"] = stored.to_json_dict()
    filters = asked.get("filters", {})
    answers["studies"] = client.search_for_studies(search_filters=filters)
    answers["series"] = client.search_for_series(search_filters=filters)
    answers["instances"] = client.search_for_instances(search_filters=filters)
    if asked.get("study"):
        study, series, instance = asked["study"], asked["series"], asked["instance"]
        answers["limited"] = len(client.search_for_instances(study_instance_uid=study, limit=1, offset=1))
        answers["retrieved"] = {found.SOPInstanceUID: whole(found) for found in client.retrieve_study(study)}
        one = client.retrieve_instance(study, series, instance)
        answers["sent"] = {path: whole(dcmread(path)) for path in asked.get("compare", [])}
        answers["one"] = whole(one)
        metadata = client.retrieve_study_metadata(study)
        answers["metadata"] = metadata
        if asked.get("frames"):
            frames = client.retrieve_instance_frames(study, series, instance, asked["frames"])
            answers["frames"] = [sha256(frame) for frame in frames]
        if asked.get("bulk"):
            told = next(one for one in metadata if one["00080018"]["Value"] == [instance])
            values = client.retrieve_bulkdata(told[asked["bulk"]]["BulkDataURI"])
            answers["bulk"] = [sha256(value) for value in values]
    json.dump(answers, sys.stdout)


main()
