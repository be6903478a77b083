"""
Make the kept plans anew, after a change of terraform/: python tests/terraform/keep_plans.py

Needs terraform and a google provider. Read the diff before you commit it.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from terraform.plan import keep
from terraform.terraform_cli import Workspace

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        for module, plan in Workspace(Path(directory), ">= 8, < 9").plans().items():
            keep(module, plan)
