"""
What the API answers with, as types. Fields that a newer control plane adds are in `to_dict()`; none
is invented here: what was not in the answer has its empty value.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import msgspec

from sublet.client.errors import UnexpectedAnswer
from sublet.client.http import ApiClient, Json, api_of_the_environment

if TYPE_CHECKING:
    from sublet.client.client import Client

T = TypeVar("T")


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of an answer, with names as Python writes them."""


class Status(Part, frozen=True, kw_only=True):
    """`code` is the name of a gRPC code; OK means that nothing is wrong."""

    code: str = "OK"
    message: str = ""


class Fact(Part, frozen=True, kw_only=True):
    """
    One fact about one principal. `verdict` is PROVED, REFUTED or NOT_VISIBLE; `fix` is the command
    that would mend it.
    """

    fact: str
    rule: str
    verdict: str
    evidence: str
    principal: str = ""
    fix: str = ""
    refuses: bool = False


class AccessCheck(Part, frozen=True, kw_only=True):
    check_time: datetime | None = None
    holds_until: datetime | None = None
    facts: tuple[Fact, ...] = ()

    @property
    def refusals(self) -> tuple[Fact, ...]:
        return tuple(fact for fact in self.facts if fact.refuses)


class Probe(Part, frozen=True, kw_only=True):
    """One try of a token after its end, and what the storage API answered."""

    time: datetime
    refused: bool
    answers: str = ""


class ReadBeside(Part, frozen=True, kw_only=True):
    """The tensors that a training began with, or what it was evaluated on."""

    external_url: str
    external_generation: str


class Reading(Part, frozen=True, kw_only=True):
    """
    One lease of a job: what it could read, how much of all that it did, and since when it cannot.
    """

    lease: str
    purpose: str
    state: str
    external_url: str
    external_generation: str
    reads_beside: tuple[ReadBeside, ...] = ()
    bytes_read: int = 0
    credential: str = ""
    start_time: datetime | None = None
    minting_stop_time: datetime | None = None
    last_possible_use: datetime | None = None
    refused: bool = False
    proof: Probe | None = None


class Receipt(Part, frozen=True, kw_only=True):
    """
    Which bytes a job read, by which credentials, and that those are refused now. Once all are,
    `signed_receipt` says so under the control plane's signature; `sublet verify receipt` checks it.
    """

    job: str
    state: str
    dataset: str
    external_url: str
    external_generation: str
    external_crc32c: str = msgspec.field(name="externalCrc32c")
    output_model: str = ""
    output_uri: str = ""
    access_is_refused: bool = False
    readings: tuple[Reading, ...] = ()
    signed_receipt: str = ""
    signed_receipt_uri: str = ""


class Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel", dict=True):
    """
    A resource as it was when it was read; `get()` reads it again. Equal if all fields are.
    """

    collection: ClassVar[str]

    name: str

    @classmethod
    def read(cls, api: ApiClient, wire: Mapping[str, Any]) -> Self:
        """
        Raises:
            UnexpectedAnswer: a field is missing or of the wrong type; names it.
        """
        made = converted(wire, cls)
        made.__dict__.update(api=api, wire=dict(wire))
        return made

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]

    def to_dict(self) -> Json:
        """The answer itself: names as on the wire, and every field of it."""
        return dict(self.__dict__["wire"])

    def get(self) -> Self | None:
        """The same resource as it is now; None if it was deleted."""
        wire = self._api.find(self.collection, self.name)
        return None if wire is None else self.read(self._api, wire)

    def delete(self) -> None:
        """Forget it here; files in buckets stay where they are."""
        self._api.delete(self.collection, self.name)

    @property
    def _api(self) -> ApiClient:
        api: ApiClient = self.__dict__["api"]
        return api


class Account(Resource, frozen=True, kw_only=True):
    """
    `email` is the address that a bucket's owner grants, to say for which tenant it is.

    An `always_on` account's jobs start at once, and its access ends with its tokens' age; one with
    `challenge_required` needs on each bucket the label that `client.account(bucket=...)` shows.
    """

    collection = "accounts"

    email: str
    display_name: str = ""
    state: str = ""
    control_plane_service_account: str = ""
    data_service_accounts: tuple[str, ...] = ()
    project_numbers: tuple[int, ...] = ()
    always_on: bool = False
    challenge_required: bool = False
    challenge_label: str = ""


class PeftDetails(Part, frozen=True, kw_only=True):
    base_model: str
    r: int
    target_modules: tuple[str, ...] = ()


class Model(Resource, frozen=True, kw_only=True):
    """`uri` is where the files lie: for an adapter, a folder of its owner's bucket."""

    collection = "models"

    display_name: str = ""
    kind: str = ""
    state: str = ""
    status: Status = Status()
    create_time: datetime | None = None
    uri: str = ""
    fine_tuning_job: str = ""
    peft_details: PeftDetails | None = None

    @property
    def is_adapter(self) -> bool:
        return self.kind == "HF_PEFT_ADDON"


class Dataset(Resource, frozen=True, kw_only=True):
    """A reference to one generation of one object in your bucket, and what was proved about it."""

    collection = "datasets"

    display_name: str = ""
    state: str = ""
    status: Status = Status()
    create_time: datetime | None = None
    example_count: int = 0
    format: str = ""
    external_url: str = ""
    external_generation: str = ""
    external_crc32c: str = msgspec.field(default="", name="externalCrc32c")
    access_check: AccessCheck = AccessCheck()

    @classmethod
    def create(
        cls,
        dataset_id: str,
        *,
        external_url: str,
        display_name: str = "",
        client: "Client | None" = None,
    ) -> Self:
        """
        Reference a JSONL file of your bucket. The same call again gives the same dataset.

        Args:
            external_url: gs://BUCKET/OBJECT, or a folder that holds only that file.
            client: for an account of one's own choice; else the environment's.

        Raises:
            AccessDenied: the bucket does not prove what it must; says which command mends it.
            InvalidRequest: a row is no example; says which line and why.
            AlreadyExists: the id is that of a dataset of another file.
        """
        api = _api_of(client)
        fields = {"externalUrl": external_url, "displayName": display_name}
        made = api.create("datasets", {"datasetId": dataset_id, "dataset": fields})
        return cls.read(api, made)

    @classmethod
    def from_id(cls, dataset_id: str, *, client: "Client | None" = None) -> Self:
        """
        Args:
            dataset_id: or the full name.

        Raises:
            NotFound: there is none.
        """
        api = _api_of(client)
        return cls.read(api, api.get("datasets", dataset_id))


def converted(wire: object, kind: type[T]) -> T:
    """
    Raises:
        UnexpectedAnswer: `wire` is not of that type; names the field.
    """
    try:
        return msgspec.convert(_without_nulls(wire), kind, strict=False)
    except msgspec.ValidationError as error:
        raise UnexpectedAnswer(f"the control plane's {kind.__name__}: {error}") from None


def _without_nulls(wire: object) -> object:
    """What is null on the wire is not there."""
    if isinstance(wire, Mapping):
        return {key: _without_nulls(item) for key, item in wire.items() if item is not None}
    return [_without_nulls(item) for item in wire] if isinstance(wire, list) else wire


def _api_of(client: "Client | None") -> ApiClient:
    return client.api if client else api_of_the_environment()
