"""
Signed statements: what was said, in the one way of writing it, and who said it. A statement is read
by whoever has it, years later and offline; so it is JSON, with its signature beside it.

Source: https://www.rfc-editor.org/rfc/rfc8785 (of which this is the part without fractions)
"""

import json
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec

from sublet.errors import InvalidRequest, SubletError

RECEIPT: Final = "dev.sublet.receipt.v2"
_ALGORITHM: Final = "Ed25519"


class ForgedStatement(SubletError):
    """Raised for a statement that was changed since, or that somebody else signed."""

    status = 500
    reason = "DATA_LOSS"
    code = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """`public_key` is 32 bytes, `signature` 64: of `message`, which names the kind first."""

    kind: str
    content: Mapping[str, Any]
    public_key: bytes
    signature: bytes

    @property
    def message(self) -> bytes:
        return signed_bytes(self.kind, self.content)

    @property
    def key_fingerprint(self) -> str:
        return sha256(self.public_key).hexdigest()

    def to_text(self) -> str:
        document = {
            "kind": self.kind,
            "content": self.content,
            "signature": {
                "algorithm": _ALGORITHM,
                "keySha256": self.key_fingerprint,
                "publicKey": b64encode(self.public_key).decode(),
                "value": b64encode(self.signature).decode(),
            },
        }
        text = json.dumps(document, ensure_ascii=False)
        return msgspec.json.format(text, indent=2) + "\n"


def parse_statement(text: str) -> Statement:
    """
    Raises:
        InvalidRequest: it is no statement; what is missing or of another form is named.
    """
    try:
        document = json.loads(text, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"this is no signed statement: {error}") from None
    try:
        signature = document["signature"]
        if signature["algorithm"] != _ALGORITHM:
            raise InvalidRequest(f"got algorithm {signature['algorithm']}; expected {_ALGORITHM}")
        statement = Statement(
            kind=str(document["kind"]),
            content=dict(document["content"]),
            public_key=b64decode(signature["publicKey"], validate=True),
            signature=b64decode(signature["value"], validate=True),
        )
    except KeyError as missing:
        raise InvalidRequest(f"this is no signed statement: it has no {missing}") from None
    except (TypeError, ValueError, NotBase64) as error:
        raise InvalidRequest(f"this is no signed statement: {error}") from None
    if signature.get("keySha256") != statement.key_fingerprint:
        raise InvalidRequest("the key in the statement has another fingerprint than it says")
    return statement


def signed_bytes(kind: str, content: Mapping[str, Any]) -> bytes:
    """Kind and digest, however long the content is: who holds the key may take little at a time."""
    return f"{kind}\n{sha256(canonical_json(content)).hexdigest()}".encode()


def canonical_json(value: object) -> bytes:
    """
    The one way to write a value: keys sorted, no spaces, UTF-8.

    Raises:
        InvalidRequest: it holds a fraction, which has more than one way to be written, or a key
            outside ASCII, which has more than one order.
    """
    _check_has_one_form(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _check_has_one_form(value: object) -> None:
    match value:
        case None | bool() | int() | str():
            return
        case list() | tuple():
            for item in value:
                _check_has_one_form(item)
        case Mapping():
            for key, item in value.items():
                if not (isinstance(key, str) and key.isascii()):
                    raise InvalidRequest(f"the key {key!r} has no one place in the order of keys")
                _check_has_one_form(item)
        case _:
            raise InvalidRequest(f"a {type(value).__name__} has no one way to be written")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two values of one key would be read as one by us and as the other by somebody else."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
