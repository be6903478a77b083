"""
Hands over what was trained: the adapter, its tokenizer, its card and the metrics into a folder
named after the lease's epoch, where no earlier or later holder of the lease writes; then, if the
lease is still ours, the manifest. Of several attempts at one job the first manifest wins, and the
others report that one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sublet.codec import decode, encode
from sublet.errors import AlreadyExists
from sublet.handover import TrainedAdapter
from sublet.jobs import PinnedObject
from sublet.names import Generation, ObjectVersion
from sublet_trainer.leased.lease import HeldLease
from sublet_trainer.leased.output import Output
from sublet_trainer.logs import INFO, log
from sublet_trainer.models.adapter import TENSORS
from sublet_trainer.results.manifest import MANIFEST, Manifest, ManifestFile

_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_CONTENT_TYPES: Final = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "md": "text/markdown",
    "svg": "image/svg+xml",
}


def folder_of(epoch: int) -> str:
    return f"epoch-{epoch}/"


def tokenizer_files(base_model: Path) -> dict[str, bytes]:
    """The base's own, byte for byte: saved anew they would suit one library version only."""
    return {
        name: (base_model / name).read_bytes()
        for name in _TOKENIZER_FILES
        if (base_model / name).is_file()
    }


def upload(
    output: Output, folder: str, files: Iterable[tuple[str, bytes | bytearray]]
) -> list[ManifestFile]:
    """
    Create each file; return them as the server describes them.

    Raises:
        AccessDenied, AlreadyExists, TryAgain: as Output.create().
    """
    uploaded = []
    for name, content in files:
        content_type = _CONTENT_TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        stored = output.create(folder + name, content, content_type)
        uploaded.append(
            ManifestFile(
                name=name,
                size_bytes=int(stored.size),
                md5=stored.md5_hash,
                crc32c=stored.crc32c,
                generation=stored.generation,
            )
        )
    return uploaded


def weights_among(
    files: Sequence[ManifestFile], output: Output, folder: str
) -> PinnedObject | None:
    """The adapter's tensors as a later job may be told to start from them."""
    for file in files:
        if file.name == TENSORS:
            version = ObjectVersion(
                bucket=output.writes.bucket,
                object=f"{output.writes.prefix}{folder}{file.name}",
                generation=Generation.parse(file.generation),
            )
            return PinnedObject(version=version, crc32c=file.crc32c, size_bytes=file.size_bytes)
    return None


def publish(output: Output, lease: HeldLease, manifest: Manifest) -> TrainedAdapter:
    """
    Write the manifest if we still hold the lease and nobody else has written one.

    Returns the adapter that the job's manifest names, which may be another attempt's.

    Raises:
        LeaseLost: the lease is not ours any more; nothing was written.
    """
    lease.renew()
    content = msgspec.json.format(encode(manifest), indent=2)
    try:
        output.create(MANIFEST, content, _CONTENT_TYPES["json"])
    except AlreadyExists:
        winner = find_published(output)
        if winner is None:
            raise
        return winner
    log(INFO, "manifest written", url=output.url(MANIFEST))
    return manifest.adapter


def find_published(output: Output) -> TrainedAdapter | None:
    """The adapter of a manifest that is there already, if one is."""
    found = output.find(MANIFEST)
    if found is None:
        return None
    published = decode(output.read_back(found), _Published)
    log(INFO, "another attempt's manifest stands", url=output.url(MANIFEST), epoch=published.epoch)
    return published.adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """Of a manifest, whichever version of sublet wrote it, what another attempt must know."""

    epoch: int
    adapter: TrainedAdapter
