"""
Cloud Storage and IAM in one process: objects with generations, policies with conditions, accounts
that can be switched off, tokens that end. It decides as the real one does, and passes the same
contract suite.
"""

import itertools
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256

from sublet.buckets import Binding, BucketMetadata, Condition, FolderPolicy, NotVisible, Policy
from sublet.conditions import Request, Truth, evaluate
from sublet.datasets import ListedObject, ObjectMetadata
from sublet.errors import AccessDenied, NotFound, TryAgain
from sublet.grants import OBJECT_TYPE
from sublet.handover import AccessToken
from sublet.leases import Probe
from sublet.names import Email, Generation, ObjectVersion, OutputPrefix, object_resource_name
from sublet.ports import Clock, TokenSource
from sublet.roles import carries

_GET = "storage.objects.get"
_LIST = "storage.objects.list"
_CREATE = "storage.objects.create"


@dataclass(slots=True)
class MemoryBucket:
    metadata: BucketMetadata
    policy: Policy
    generations: dict[str, dict[Generation, bytes]] = field(default_factory=dict)
    encodings: dict[str, str] = field(default_factory=dict)
    folders: list[FolderPolicy] = field(default_factory=list)
    shows_folders: bool = True


@dataclass(frozen=True, slots=True)
class _Minted:
    token: AccessToken
    account: Email
    reads: ObjectVersion
    beside: tuple[ObjectVersion, ...]
    writes: OutputPrefix | None


class MemoryCloud:
    """The world as an owner sees it; the ports below are what sublet sees of it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.buckets: dict[str, MemoryBucket] = {}
        self.disabled: set[Email] = set()
        self.custom_roles: dict[str, frozenset[str]] = {}
        self.missing_accounts: set[Email] = set()
        self.refuses_to_switch = False
        self.bytes_served = 0
        self.made_at: dict[tuple[str, str, Generation], datetime] = {}
        self._tokens: dict[str, _Minted] = {}
        self._numbers = itertools.count(1)

    # --- what an owner does -----------------------------------------------------------------------

    def make_bucket(
        self, name: str, *, project_number: int = 1, uniform: bool = True
    ) -> MemoryBucket:
        metadata = BucketMetadata(
            bucket=name,
            project_number=project_number,
            created_at=self.clock.now(),
            location="US",
            uniform_access=uniform,
            public_access_prevention="inherited",
            versioning=True,
        )
        empty = Policy(version=1, etag="0", bindings=())
        self.buckets[name] = MemoryBucket(metadata, empty)
        return self.buckets[name]

    def grant(self, bucket: str, role: str, member: str, condition: str = "") -> None:
        made = self.buckets[bucket]
        conditioned = Condition(expression=condition, title="c") if condition else None
        binding = Binding(role=role, members=(member,), condition=conditioned)
        self.set_bindings(bucket, (*made.policy.bindings, binding))

    def set_bindings(self, bucket: str, bindings: Iterable[Binding]) -> None:
        etag = str(next(self._numbers))
        self.buckets[bucket].policy = Policy(version=3, etag=etag, bindings=tuple(bindings))

    def grant_folder(self, bucket: str, folder: str, role: str, member: str) -> None:
        """The one binding of a managed folder, which is made if it is not there."""
        bindings = (Binding(role=role, members=(member,)),)
        policy = Policy(version=3, etag=str(next(self._numbers)), bindings=bindings)
        others = [one for one in self.buckets[bucket].folders if one.folder != folder]
        self.buckets[bucket].folders = [*others, FolderPolicy(folder=folder, policy=policy)]

    def put(self, bucket: str, name: str, data: bytes) -> ObjectVersion:
        generation = Generation(next(self._numbers))
        self.buckets[bucket].generations.setdefault(name, {})[generation] = data
        self.made_at[bucket, name, generation] = self.clock.now()
        return ObjectVersion(bucket=bucket, object=name, generation=generation)

    def remove(self, version: ObjectVersion) -> None:
        del self.buckets[version.bucket].generations[version.object][version.generation]

    # --- deciding ---------------------------------------------------------------------------------

    def status_of(self, token: str, permission: str, bucket: str, name: str) -> int:
        """What Cloud Storage answers to that token: 200, 401 or 403."""
        minted = self._tokens.get(token)
        if (
            minted is None
            or self.clock.now() >= minted.token.expires_at
            or minted.account in self.disabled
        ):
            return 401
        if not _in_boundary(minted, permission, bucket, name):
            return 403
        return 200 if self._is_granted(minted.account, permission, bucket, name) else 403

    def _is_granted(self, account: Email, permission: str, bucket: str, name: str) -> bool:
        if bucket not in self.buckets:
            return False
        request = Request(
            time=self.clock.now(),
            resource_name=object_resource_name(bucket, name),
            resource_type=OBJECT_TYPE,
        )
        return any(
            f"serviceAccount:{account}" in binding.members
            and self._role_carries(binding.role, permission)
            and (
                binding.condition is None
                or evaluate(binding.condition.expression, request) is Truth.TRUE
            )
            for binding in self._bindings_over(bucket, name)
        )

    def _bindings_over(self, bucket: str, name: str) -> Iterator[Binding]:
        made = self.buckets[bucket]
        yield from made.policy.bindings
        for folder in made.folders:
            if folder.covers(name):
                yield from folder.policy.bindings

    def _role_carries(self, role: str, permission: str) -> bool:
        return bool(carries(role, permission)) or permission in self.custom_roles.get(role, ())

    # --- ports ------------------------------------------------------------------------------------

    def metadata(self, bucket: str) -> BucketMetadata | NotVisible:
        made = self.buckets.get(bucket)
        return made.metadata if made else NotVisible("there is no such bucket")

    def policy(self, bucket: str) -> Policy | NotVisible:
        made = self.buckets.get(bucket)
        return made.policy if made else NotVisible("there is no such bucket")

    def managed_folders(self, bucket: str) -> tuple[FolderPolicy, ...] | NotVisible:
        made = self.buckets.get(bucket)
        if made is None or not made.shows_folders:
            return NotVisible("there is no such bucket, or it does not show its folders")
        return tuple(made.folders)

    def permissions_of(self, custom_role: str) -> frozenset[str] | NotVisible:
        return self.custom_roles.get(custom_role, NotVisible("there is no such role"))

    def mint(
        self,
        data_account: Email,
        *,
        reads: ObjectVersion,
        beside: tuple[ObjectVersion, ...] = (),
        writes: OutputPrefix | None,
        ttl: timedelta,
    ) -> AccessToken:
        if data_account in self.disabled:
            raise TryAgain(f"{data_account} is disabled")
        secret = f"memory-token-{next(self._numbers)}"
        token = AccessToken(secret=secret, expires_at=self.clock.now() + ttl)
        self._tokens[secret] = _Minted(token, data_account, reads, beside, writes)
        return token

    def set_enabled(self, data_account: Email, *, enabled: bool) -> None:
        if data_account in self.missing_accounts:
            raise NotFound(f"{data_account} does not exist")
        if self.refuses_to_switch:
            raise AccessDenied(f"may not switch {data_account}")
        (self.disabled.discard if enabled else self.disabled.add)(data_account)

    def is_enabled(self, data_account: Email) -> bool:
        if data_account in self.missing_accounts:
            raise NotFound(f"{data_account} does not exist")
        return data_account not in self.disabled

    def probe(
        self,
        token: str,
        *,
        reads: ObjectVersion,
        beside: tuple[ObjectVersion, ...] = (),
        writes: OutputPrefix | None,
    ) -> Probe:
        permission = _LIST if reads.is_folder else _GET
        answers = {"read": self.status_of(token, permission, reads.bucket, reads.object)}
        for number, other in enumerate(beside, 1):
            status = self.status_of(token, _GET, other.bucket, other.object)
            answers[f"read beside {number}"] = status
        if writes:
            name = f"{writes.prefix}revocation-probe"
            answers["create"] = self.status_of(token, _CREATE, writes.bucket, name)
        return Probe(
            at=self.clock.now(),
            is_refused=all(status in (401, 403) for status in answers.values()),
            is_dead=all(status == 401 for status in answers.values()),
            answers=", ".join(f"{verb}: {status}" for verb, status in answers.items()),
        )

    def open_objects(self, tokens: TokenSource) -> "MemoryLeasedObjects":
        return MemoryLeasedObjects(self, tokens)


def _in_boundary(minted: _Minted, permission: str, bucket: str, name: str) -> bool:
    """Those objects to read, that prefix to create under and to read back, and nothing else."""
    reads = _LIST if minted.reads.is_folder else _GET
    if permission == reads and (bucket, name) == (minted.reads.bucket, minted.reads.object):
        return True
    if permission == _GET and (bucket, name) in [(one.bucket, one.object) for one in minted.beside]:
        return True
    writes = minted.writes
    return (
        writes is not None
        and permission in (_GET, _CREATE)
        and bucket == writes.bucket
        and name.startswith(writes.prefix)
    )


class MemoryUploads:
    """Places that were opened with a token and are filled without one."""

    def __init__(self, cloud: MemoryCloud) -> None:
        self._cloud = cloud
        self._places: dict[str, tuple[str, str]] = {}

    def open(self, token: str, *, bucket: str, name: str) -> str:
        status = self._cloud.status_of(token, _CREATE, bucket, name)
        if status != 200:
            raise AccessDenied(f"gs://{bucket}/{name}: {status}")
        address = f"memory-upload-{len(self._places)}"
        self._places[address] = bucket, name
        return address

    def put(self, address: str, data: bytes) -> None:
        bucket, name = self._places.get(address, ("", ""))
        if bucket not in self._cloud.buckets:
            raise NotFound("the upload is no more")
        if not self._cloud.buckets[bucket].generations.get(name):
            self._cloud.put(bucket, name, data)


class MemoryLeasedObjects:
    def __init__(self, cloud: MemoryCloud, tokens: TokenSource) -> None:
        self._cloud = cloud
        self._tokens = tokens

    def metadata(self, version: ObjectVersion) -> ObjectMetadata:
        found, data = self._find(version)
        made = self._cloud.buckets[version.bucket]
        return ObjectMetadata(
            version=found,
            size_bytes=len(data),
            crc32c=b64encode(sha256(data).digest()[:4]).decode(),
            content_encoding=made.encodings.get(version.object, ""),
            created_at=self._cloud.made_at[found.bucket, found.object, found.generation],
        )

    def list_folder(
        self, folder: ObjectVersion, *, after: str = "", limit: int
    ) -> list[ListedObject]:
        token = self._tokens.token().secret
        status = self._cloud.status_of(token, _LIST, folder.bucket, folder.object)
        if status != 200:
            raise AccessDenied(f"{folder.url}: {status}")
        live = self._cloud.buckets[folder.bucket].generations
        names = sorted(n for n in live if live[n] and n.startswith(folder.object) and n > after)
        return [self._listed(folder.bucket, name, max(live[name])) for name in names[:limit]]

    def read(self, version: ObjectVersion, start: int, end: int) -> bytes:
        _, data = self._find(version)
        self._cloud.bytes_served += len(data[start:end])
        return data[start:end]

    def _listed(self, bucket: str, name: str, generation: Generation) -> ListedObject:
        made_at = self._cloud.made_at[bucket, name, generation]
        return ListedObject(name=name, generation=generation, created_at=made_at)

    def _find(self, version: ObjectVersion) -> tuple[ObjectVersion, bytes]:
        token = self._tokens.token().secret
        status = self._cloud.status_of(token, _GET, version.bucket, version.object)
        if status != 200:
            raise AccessDenied(f"{version.url}: {status}")
        generations = self._cloud.buckets[version.bucket].generations.get(version.object, {})
        generation = version.generation if version.is_pinned else max(generations, default=None)
        if generation is None or generation not in generations:
            raise NotFound(f"{version} is not there")
        return replace(version, generation=generation), generations[generation]
