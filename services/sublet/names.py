"""
Names: resources of the API, and objects in buckets. Parsing is strict and happens once; a parsed
name is known to be well formed, so nothing downstream decodes, trims or guesses. Grammars follow
the Fireworks API (ids) and Cloud Storage (buckets, objects), minus the object names that have been
used to smuggle something past a check.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Final, NewType, Self

from sublet.errors import InvalidRequest

Email = NewType("Email", str)
"""A service account's address, lower case."""

_GENERATION = re.compile(r"[1-9][0-9]{0,18}")
_RESOURCE_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_DOTTED_IP = re.compile(r"\d+\.\d+\.\d+\.\d+")
_FORBIDDEN_IN_OBJECTS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069*?#\\[\\]'\"\\\\]"
)
_MAX_OBJECT_NAME_BYTES = 1024


class Generation(int):
    """
    One version of one object; on the wire the string of an int64, as Cloud Storage sends it.

    0 stands for "the live one, not known yet"; only a verification may ask for that, to find it
    out.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _GENERATION.fullmatch(text):
            raise InvalidRequest(
                f"got generation {text[:32]!r}; expected a positive int64 in digits"
            )
        return cls(text)


def check_resource_id(text: str, *, what: str) -> str:
    """
    Return `text` if it may be the last part of a resource name.

    Raises:
        InvalidRequest: it is not 1 to 63 of a-z, 0-9 and hyphen, led by a letter, not ended by a
            hyphen.
    """
    if len(text) > 63:
        raise InvalidRequest(
            f"{what} {text[:20]!r}... is too long ({len(text)} chars). Maximum is 63 characters."
        )
    if not re.fullmatch(r"[a-z0-9-]*", text):
        raise InvalidRequest(
            f"{what} {text!r} contains invalid characters. Must be lowercase a-z, 0-9, or hyphen."
        )
    if not _RESOURCE_ID.fullmatch(text):
        raise InvalidRequest(
            f"{what} {text!r} is not a valid id: expected 1-63 characters, "
            "starting with a letter and not ending with a hyphen."
        )
    return text


class AccountName(str):
    """`accounts/{account}`."""

    __slots__ = ()

    @classmethod
    def of(cls, account_id: str) -> Self:
        return cls(f"accounts/{check_resource_id(account_id, what='account id')}")

    @classmethod
    def parse(cls, text: str) -> Self:
        collection, _, account_id = text.partition("/")
        if collection != "accounts":
            raise InvalidRequest(f"got {text!r}; expected accounts/ACCOUNT")
        return cls.of(account_id)

    @property
    def id(self) -> str:
        return self.removeprefix("accounts/")


class ResourceName(str):
    """`accounts/{account}/{collection}/{id}`; one subclass for each collection."""

    __slots__ = ()
    collection: ClassVar[str]

    @classmethod
    def of(cls, account: AccountName, resource_id: str) -> Self:
        check_resource_id(resource_id, what=f"{cls.collection} id")
        return cls(f"{account}/{cls.collection}/{resource_id}")

    @classmethod
    def parse(cls, text: str) -> Self:
        parts = text.split("/")
        if len(parts) == 4 and parts[0] == "accounts":
            for kind in (cls, *cls.__subclasses__()):
                if kind.collection == parts[2]:
                    return kind.of(AccountName.of(parts[1]), parts[3])
        raise InvalidRequest(f"got {text!r}; expected accounts/ACCOUNT/{cls.collection}/ID")

    @classmethod
    def under(cls, account: AccountName, text: str) -> Self:
        """Read an id or a full name; a bare id belongs to `account`."""
        return cls.parse(text) if "/" in text else cls.of(account, text)

    @property
    def account(self) -> AccountName:
        return AccountName(self[: self.index("/", len("accounts/"))])

    @property
    def id(self) -> str:
        return self.rpartition("/")[2]


class DatasetName(ResourceName):
    __slots__ = ()
    collection = "datasets"


class JobName(ResourceName):
    """Of a supervised job; parsed, of a job of any kind."""

    __slots__ = ()
    collection = "supervisedFineTuningJobs"


class ReinforcementJobName(JobName):
    __slots__ = ()
    collection = "rlorTrainerJobs"


class PreferenceJobName(JobName):
    __slots__ = ()
    collection = "dpoJobs"


class ModelName(ResourceName):
    __slots__ = ()
    collection = "models"


class WatchName(ResourceName):
    __slots__ = ()
    collection = "watches"


class LeaseName(ResourceName):
    __slots__ = ()
    collection = "leases"


def check_bucket_name(text: str) -> str:
    """
    Return `text` if Cloud Storage could have a bucket of that name.

    Raises:
        InvalidRequest: it breaks https://cloud.google.com/storage/docs/buckets#naming.
    """
    parts = text.split(".")
    if (
        not _BUCKET.fullmatch(text)
        or any(not part or len(part) > 63 or part[0] in "-_" or part[-1] in "-_" for part in parts)
        or (len(parts) == 1 and len(text) > 63)
        or _DOTTED_IP.fullmatch(text)
        or text.startswith("goog")
        or "google" in text
    ):
        raise InvalidRequest(
            f"got bucket {text!r}; expected 3-63 of a-z, 0-9, '-', '_' and '.', "
            "as Cloud Storage names buckets"
        )
    return text


def check_object_name(text: str) -> str:
    """
    Return `text` if it is an object name that sublet is willing to handle.

    Stricter than Cloud Storage: control and direction-changing characters, quotes, backslashes,
    wildcards, '#', empty, '.' and '..' segments are refused, because each has a history of meaning
    one thing to the checker and another to the reader (a condition, a shell, a URL, a log).

    Raises:
        InvalidRequest: with the reason.
    """
    try:
        num_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("object name is not valid UTF-8") from None
    if not 1 <= num_bytes <= _MAX_OBJECT_NAME_BYTES:
        raise InvalidRequest(
            f"object name has {num_bytes} bytes; expected 1 to {_MAX_OBJECT_NAME_BYTES}"
        )
    if found := _FORBIDDEN_IN_OBJECTS.search(text):
        raise InvalidRequest(
            f"object name {text!r} has the character {found.group()!r}; rename the object without "
            "quotes, backslashes, wildcards, '#' and control characters"
        )
    if any(segment in ("", ".", "..") for segment in text.removesuffix("/").split("/")):
        raise InvalidRequest(f"object name {text!r} has an empty, '.' or '..' segment")
    return text


LIVE_GENERATION: Final = Generation(0)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ObjectVersion:
    """One generation of one object: the only thing a job may ever read."""

    bucket: str
    object: str
    generation: Generation

    def __post_init__(self) -> None:
        check_bucket_name(self.bucket)
        check_object_name(self.object)
        if self.generation < 0:
            raise InvalidRequest(f"got generation {self.generation}; expected a positive integer")

    @property
    def is_folder(self) -> bool:
        """Then it is to be listed and not to be read: no bytes of anything are of that name."""
        return self.object.endswith("/")

    @property
    def is_pinned(self) -> bool:
        return self.generation > 0

    @property
    def url(self) -> str:
        return f"gs://{self.bucket}/{self.object}"

    @property
    def resource_name(self) -> str:
        """The name that IAM conditions see."""
        return object_resource_name(self.bucket, self.object)

    @property
    def digest(self) -> str:
        """40 hex digits that stand for this version in ids: natural keys make repeats harmless."""
        return sha256(f"{self.bucket}\0{self.object}\0{self.generation}".encode()).hexdigest()[:40]

    def __str__(self) -> str:
        return f"{self.url}#{self.generation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPrefix:
    """Where one job may create objects, and nowhere else. `prefix` ends in '/'."""

    bucket: str
    prefix: str

    def __post_init__(self) -> None:
        check_bucket_name(self.bucket)
        check_prefix(self.prefix)

    def covers(self, version: ObjectVersion) -> bool:
        return version.bucket == self.bucket and version.object.startswith(self.prefix)

    @property
    def url(self) -> str:
        return f"gs://{self.bucket}/{self.prefix}"


def check_prefix(text: str) -> str:
    """
    Return `text` if it is a whole folder: `tenants/acme` would match `tenants/acme-evil/` too.

    Raises:
        InvalidRequest: it is empty, does not end in '/', or is no object name.
    """
    if not text.endswith("/"):
        raise InvalidRequest(f"got prefix {text!r}; expected a folder that ends in '/'")
    return check_object_name(text)


def parse_gs_url(url: str) -> tuple[str, str]:
    """
    Split `gs://bucket/object` into bucket and object; nothing is decoded.

    Raises:
        InvalidRequest: it is not of that form, or a part of it is refused.
    """
    bucket, separator, object_name = url.removeprefix("gs://").partition("/")
    if not url.startswith("gs://") or not separator or not object_name:
        raise InvalidRequest(f"got {url!r}; expected gs://BUCKET/OBJECT")
    return check_bucket_name(bucket), check_object_name(object_name)


def bucket_resource_name(bucket: str) -> str:
    return f"projects/_/buckets/{bucket}"


def object_resource_name(bucket: str, object_name: str) -> str:
    return f"projects/_/buckets/{bucket}/objects/{object_name}"
