"""`sublet verify audit` checks the chain of a running stack's audit log."""

import json
import subprocess

from running_stack import SUBLET


def test_the_audit_log_of_a_whole_run_is_an_unbroken_chain(stack, trained):
    tenant = trained.tenant
    first = json.loads(stack.sublet("verify", "audit", *_as(stack, tenant), "-o", "json"))
    assert first["chain"] == "UNBROKEN" and first["entries"] > 5
    held = _verify(stack, tenant, "--expect", first["sha256"])
    assert held.returncode == 0, held.stderr
    missing = _verify(stack, tenant, "--expect", "0" * 64)
    assert missing.returncode == 1 and "written anew or cut" in missing.stderr


def test_every_unit_writes_into_the_one_log(trained):
    methods = {
        entry["method"] for entry in trained.tenant.get("auditLogs?pageSize=200")["auditLogs"]
    }
    assert {"CreateDataset", "OpenLease", "MintToken", "RevokeLease", "ProveEnd"} <= methods


def _as(stack, tenant) -> list[str]:
    base_url = stack.variables["SUBLET_BASE_URL"]
    return ["--base-url", base_url, "--api-key", tenant.api_key, "-a", tenant.name]


def _verify(stack, tenant, *options):
    command = [SUBLET, "verify", "audit", *_as(stack, tenant), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
