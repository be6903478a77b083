"""
What users do in their own buckets with their own credentials, from their own machine: the
application default ones, or none where STORAGE_EMULATOR_HOST names a cloud on it. No identity of
sublet's is in it.
"""

import os
from pathlib import Path

from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from sublet.errors import AlreadyExists, FailedPrecondition, NotFound
from sublet.gcp.answers import translated
from sublet.names import check_prefix, parse_gs_url


class OwnBucket:
    def __init__(self) -> None:
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        if emulator:
            self._client = Client(
                project=os.environ.get("GOOGLE_CLOUD_PROJECT", "local"),
                credentials=AnonymousCredentials(),
                client_options={"api_endpoint": emulator},
            )
            return
        with translated("finding your own credentials (`gcloud auth application-default login`)"):
            self._client = Client()

    def put(self, url: str, file: Path) -> None:
        """
        Upload a file as a new object.

        Raises:
            AlreadyExists: there is one of that name; nothing was overwritten.
        """
        bucket, name = parse_gs_url(url)
        blob = self._client.bucket(bucket).blob(name)
        try:
            with translated(f"writing {url}"):
                blob.upload_from_filename(
                    str(file), content_type="application/jsonl", if_generation_match=0
                )
        except FailedPrecondition:
            raise AlreadyExists(f"{url} exists; choose another name") from None

    def fetch_folder(self, url: str, folder: Path) -> None:
        """
        Download the objects right below `url`, which ends in '/'.

        Raises:
            NotFound: there are none.
        """
        bucket, prefix = parse_gs_url(url)
        check_prefix(prefix)
        with translated(f"reading {url}"):
            found = list(self._client.list_blobs(bucket, prefix=prefix, delimiter="/"))
            for blob in found:
                blob.download_to_filename(str(folder / blob.name.rpartition("/")[2]))
        if not found:
            raise NotFound(f"{url} holds nothing")
