"""Who may do what to a bucket and to what is in it."""

from dataclasses import fields

from sublet.local.iam.enforcement import Iam
from sublet.local.iam.tokens import Caller
from sublet.local.storage.bucket_settings import Bucket

PUBLIC = frozenset({"allusers", "allauthenticatedusers"})


class _NotThePublic(Caller):
    """A caller as a bucket sees one that prevents public access: what all may do, nobody may."""

    @property
    def members(self) -> frozenset[str]:
        return super().members - PUBLIC


class Access:
    def __init__(self, iam: Iam) -> None:
        self._iam = iam

    def authorize(
        self, caller: Caller, permission: str, bucket: Bucket, object_name: str | None = None
    ) -> None:
        """
        Raises:
            Unauthenticated: nobody is calling, and nobody may not.
            AccessDenied: somebody is calling who may not.
        """
        target = bucket.target() if object_name is None else bucket.object_target(object_name)
        self._iam.authorize(_seen_by(bucket, caller), permission, target)

    def authorize_list(self, caller: Caller, bucket: Bucket, prefix: str) -> None:
        target = bucket.target(list_prefix=prefix)
        self._iam.authorize(_seen_by(bucket, caller), "storage.objects.list", target)

    def permitted(
        self, caller: Caller, permissions: list[str], bucket: Bucket, object_name: str | None = None
    ) -> list[str]:
        """Those of the permissions that the caller has."""
        target = bucket.target() if object_name is None else bucket.object_target(object_name)
        seen = _seen_by(bucket, caller)
        return [p for p in permissions if self._iam.is_allowed(seen, p, target)]


def _seen_by(bucket: Bucket, caller: Caller) -> Caller:
    if not bucket.prevents_public_access:
        return caller
    return _NotThePublic(**{field.name: getattr(caller, field.name) for field in fields(caller)})
