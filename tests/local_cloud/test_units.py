"""The deploy units' processes: forked from one, and yet each with an identity of its own."""

import subprocess
import sys

from sublet.local.units import LIBRARIES


def test_what_units_share_reads_no_identity_and_nothing_of_the_local_cloud():
    code = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]"
    command = [sys.executable, "-c", f"{code}; print(*sys.modules)", *LIBRARIES]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    apart = ("google.auth.compute_engine", "sublet.deployment", "sublet.local", "sublet.memory")
    assert not [name for name in loaded if name.startswith(apart)]
