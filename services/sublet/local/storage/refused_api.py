"""
What Cloud Storage has and the local cloud does not: refused with a reason, so that nothing is
thought to be in force that is not.
"""

from typing import Final

from sublet.errors import InvalidRequest, Unimplemented
from sublet.local.storage.service import Storage
from sublet.local.web import Handler, Request, Response, Router

_BUCKET: Final = "/storage/v1/b/{bucket}"
_OBJECT: Final = f"{_BUCKET}/o/{{object}}"
_NOT_OFFERED: Final = {
    "/storage/v1/projects/{project}/hmacKeys": "HMAC keys: sign URLs with a service account's key",
    f"{_BUCKET}/folders": "folders: the local cloud has buckets with a flat namespace only",
    f"{_BUCKET}/anywhereCaches": "Anywhere Cache: there is nothing here to be far from",
    f"{_BUCKET}/operations": "long-running operations: nothing here takes long",
    f"{_BUCKET}/relocate": "relocation of a bucket: make another one, and copy",
    f"{_BUCKET}/restore": "restoring a deleted bucket: what was in it is gone",
    f"{_BUCKET}/o/bulkRestore": "bulk restore: restore the objects one by one",
    f"{_BUCKET}/o/watch": "watching a bucket: use a Pub/Sub notification config",
    f"{_OBJECT}/iam": "policies of single objects: grant on the bucket, with a condition on the "
    "object's name",
}
_ACLS: Final = (f"{_BUCKET}/acl", f"{_BUCKET}/defaultObjectAcl", f"{_OBJECT}/acl")
_PREDEFINED_ACLS: Final = (
    "destinationPredefinedAcl",
    "predefinedAcl",
    "predefinedDefaultObjectAcl",
)
_UNIFORM: Final = (
    "Cannot use ACLs while uniform bucket-level access is enabled. "
    "Read more at https://cloud.google.com/storage/docs/uniform-bucket-level-access"
)
_NO_ACLS: Final = (
    "access control lists: the local cloud decides by IAM policies alone, and keeps no list that "
    "it would not enforce; enable uniform bucket-level access and grant roles"
)


def add_refusals(router: Router, storage: Storage) -> None:
    for path, reason in _NOT_OFFERED.items():
        for ending in ("", "/{more...}"):
            router.add("*", path + ending, _refusing(reason))
    for path in _ACLS:
        for ending in ("", "/{entity}"):
            router.add("*", path + ending, _refusing_acls(storage))


def check_has_no_acl(request: Request, storage: Storage) -> None:
    """
    Raises:
        InvalidRequest: a predefined ACL for a bucket with uniform access.
        Unimplemented: one for any other; it would not be enforced.
    """
    for parameter in _PREDEFINED_ACLS:
        if request.query.get(parameter, "projectPrivate") != "projectPrivate":
            raise _refused_acl(request, storage)


def check_has_no_key(request: Request) -> None:
    """
    Raises:
        Unimplemented: the caller wants the object encrypted with a key; it would not be.
    """
    for header in request.headers:
        if header.startswith(("x-goog-encryption-", "x-goog-copy-source-encryption-")):
            raise Unimplemented(
                f"{header}: the local cloud keeps objects unencrypted; leave it out"
            )


def _refusing(reason: str) -> Handler:
    async def refuse(request: Request) -> Response:
        del request
        raise Unimplemented(f"The local cloud does not offer {reason}.")

    return refuse


def _refusing_acls(storage: Storage) -> Handler:
    async def refuse(request: Request) -> Response:
        raise _refused_acl(request, storage)

    return refuse


def _refused_acl(request: Request, storage: Storage) -> InvalidRequest | Unimplemented:
    caller, bucket = storage.caller(request), request.parameters.get("bucket")
    if bucket is None:
        return Unimplemented(_NO_ACLS)
    storage.buckets.access.authorize(
        caller, "storage.buckets.get", found := storage.buckets.unchecked(bucket)
    )
    return InvalidRequest(_UNIFORM) if found.is_uniform else Unimplemented(_NO_ACLS)
