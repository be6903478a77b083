"""
While the trainer's image is built: compiles the one piece of Triton that it would compile in C when
it first runs, so that the image that meets data needs no compiler. A torch for CPUs brings no
Triton; then there is nothing to do.

Source: triton/backends/nvidia/driver.py, CudaUtils
"""

import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

BUILT: Final = "cuda_utils.so"
"""Beside Triton's own driver.c, where sublet_trainer.models.compiler looks for it."""
_COMPILE: Final = (sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu.2.28")
_LIBRARY: Final = ("-shared", "-fPIC", "-O3", "-w")


def main() -> None:
    triton = find_spec("triton")
    if triton is None or triton.origin is None:
        return
    folder = Path(triton.origin).parent / "backends" / "nvidia"
    with TemporaryDirectory() as scratch:
        nothing = Path(scratch, "nothing.c")
        nothing.touch()
        # In the place of the driver's library, which only a machine with a GPU has.
        driver = Path(scratch, "libcuda.so.1")
        compile_library(nothing, driver, "-Wl,-soname,libcuda.so.1")
        compile_library(
            folder / "driver.c",
            folder / BUILT,
            f"-I{folder / 'include'}",
            f"-I{sysconfig.get_path('include')}",
            f"-L{scratch}",
            "-Wl,--no-as-needed",
            "-l:libcuda.so.1",
        )


def compile_library(source: Path, library: Path, *flags: str) -> None:
    subprocess.run([*_COMPILE, *_LIBRARY, source, "-o", library, *flags], check=True)


if __name__ == "__main__":
    main()
