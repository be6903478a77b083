"""
What torch.compile makes of a layer becomes machine code of every GPU that a training can have, in
an image that has no compiler and no home. None of it is run: there is no such GPU here.

Triton comes with torch's wheels for CUDA only. `make layers-for-gpus` makes an environment with it
and runs this.
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton is not installed: make layers-for-gpus"
)

GPUS = {"A100": 80, "L4": 89, "H100": 90, "B200": 100, "RTX PRO 6000": 120}
PROGRAMS = [
    f"{half}_attention, {way}" for half in ("before", "after") for way in ("forward", "backward")
]


@pytest.fixture
def image(tmp_path):
    """The environment of a process in trainer/Dockerfile's image, as far as compilers go."""
    return {
        "PATH": "/nonexistent",
        "HOME": "/nonexistent",
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


def run(image, *arguments):
    command = [sys.executable, *map(str, arguments)]
    ran = subprocess.run(command, env=image, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.mark.parametrize("capability", GPUS.values(), ids=GPUS.keys())
def test_a_layer_becomes_a_few_kernels_of_machine_code(capability, image, folder):
    script = Path(__file__).parents[1] / "layer_programs.py"
    programs = json.loads(run(image, script, folder, capability).splitlines()[-1])
    assert list(programs) == PROGRAMS
    for kernels in programs.values():
        assert 1 < len(kernels) < 10
        assert all(size > 1000 for size in kernels.values())


def test_triton_begins_without_a_compiler_of_c(image, tmp_path):
    """By what trainer/triton_driver.py built; the driver's library says yes to everything."""
    from triton.backends import nvidia

    built = Path(nvidia.__file__).with_name("cuda_utils.so")
    names = sorted(set(re.findall(rb"\0(cu[A-Z]\w+)(?=\0)", built.read_bytes())))
    source = "".join(f"int {name.decode()}(void) {{ return 0; }}\n" for name in names)
    (tmp_path / "driver.c").write_text(source)
    library = tmp_path / "libcuda.so.1"
    zig = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC"]
    subprocess.run([*zig, tmp_path / "driver.c", "-o", library], check=True)

    begin = "from triton.backends.nvidia.driver import CudaUtils; print(CudaUtils().launch)"
    prepare = "from sublet_trainer.models.compiler import TorchCompiler; TorchCompiler()(print);"
    image["LD_LIBRARY_PATH"] = str(tmp_path)
    assert "built-in" in run(image, "-c", prepare + begin)
    with pytest.raises(AssertionError, match="Failed to find C compiler"):
        run(image | {"TMPDIR": "/tmp", "TRITON_CACHE_DIR": str(tmp_path / "none")}, "-c", begin)
