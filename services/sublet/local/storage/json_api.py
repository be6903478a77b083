"""
The JSON API of Cloud Storage as one application, with the XML API beside it: buckets, objects,
uploads, batches, and the refusals of what there is not.

Source: https://cloud.google.com/storage/docs/json_api/v1
"""

import json
from typing import Final

from sublet.local.storage.batch import BatchApi
from sublet.local.storage.bucket_api import BucketApi, NotificationApi
from sublet.local.storage.fields import parse_fields, select
from sublet.local.storage.json_errors import storage_error
from sublet.local.storage.managed_folder_api import ManagedFolderApi
from sublet.local.storage.object_api import CopyApi, ObjectApi
from sublet.local.storage.refused_api import add_refusals, check_has_no_acl, check_has_no_key
from sublet.local.storage.service import Storage
from sublet.local.storage.upload_api import UploadApi
from sublet.local.storage.xml_api import XmlRouter, add_xml_api
from sublet.local.web import Handler, Receive, Request, Response, Router, Scope, Send

_JSON_PATHS: Final = ("/storage/", "/upload/", "/download/", "/resumable/", "/batch/")


def storage_app(storage: Storage) -> Router:
    router = _JsonRouter(storage)
    BucketApi(storage).add_to(router)
    NotificationApi(storage).add_to(router)
    ManagedFolderApi(storage).add_to(router)
    CopyApi(storage).add_to(router)
    ObjectApi(storage).add_to(router)
    UploadApi(storage).add_to(router)
    BatchApi(router).add_to(router)
    add_refusals(router, storage)
    return router


class _JsonRouter(Router):
    """
    Every path of the JSON API answers with the fields that were asked for, and takes neither ACLs
    nor keys. Paths that are not its own are the XML API's.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage_error)
        self._storage = storage
        self._xml = XmlRouter()
        add_xml_api(self._xml, storage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(_JSON_PATHS):
            await self._xml(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def add(self, method: str, template: str, handler: Handler) -> None:
        async def checked(request: Request) -> Response:
            check_has_no_key(request)
            check_has_no_acl(request, self._storage)
            return _partial(await handler(request), request.query.get("fields"))

        super().add(method, template, checked)


def _partial(response: Response, fields: str | None) -> Response:
    is_json = response.headers.get("content-type", "").startswith("application/json")
    if not fields or not is_json or not isinstance(response.body, bytes):
        return response
    selected = select(json.loads(response.body), parse_fields(fields))
    return Response(
        response.status, json.dumps(selected, ensure_ascii=False).encode(), response.headers
    )
