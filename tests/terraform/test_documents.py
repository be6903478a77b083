"""What docs/how-to says of the deployment is what is deployed."""

import re

from terraform.plan import ROOT, Grant, kept

from sublet.machines import ACCELERATORS, EVERYTHING, Engine

HOW_TO = ROOT / "docs" / "how-to"
ENCRYPTS = "roles/cloudkms.cryptoKeyEncrypterDecrypter"


def who(grant: Grant) -> str:
    name, _, domain = grant.member.removeprefix("serviceAccount:").partition("@")
    is_ours = domain == "sublet-plan.iam.gserviceaccount.com"
    return name if is_ours else f"agent {domain.partition('.')[0]}"


def test_the_page_of_permissions_says_what_is_granted_and_nothing_else():
    rows = re.findall(
        r"^\| ([^|]+) \| `([^`]+)` \|", (HOW_TO / "permissions.md").read_text(), re.MULTILINE
    )
    granted = {
        (who(grant), grant.role.rpartition("/")[2] if "projects/" in grant.role else grant.role)
        for grant in kept("platform").grants()
        if grant.role != ENCRYPTS
    }
    agents, *_ = (names for names, role in rows if role == ENCRYPTS)
    assert {(name, role) for name, role in rows if role != ENCRYPTS} == granted
    num_agents = sum(grant.role == ENCRYPTS for grant in kept("platform").grants())
    assert len(agents.split(", ")) == num_agents


def test_settings_that_the_pages_name_are_variables():
    declared = "".join(
        (ROOT / "terraform" / module / "variables.tf").read_text()
        for module in ("platform", "customer-bucket")
    )
    for page in ("deploy.md", "connect-a-bucket.md", "teardown.md"):
        text = (HOW_TO / page).read_text()
        for block in re.findall(r"```hcl\n(.*?)```", text, re.DOTALL):
            for name in re.findall(r"^(?:  )?([a-z_]+) +=", block, re.MULTILINE):
                assert name in ("acme", "source") or f'variable "{name}"' in declared, (page, name)
        for name in re.findall(r"`([a-z]+_[a-z_]+)`", text):
            assert f'variable "{name}"' in declared, (page, name)


def test_the_page_of_vertex_ai_has_the_machines_that_the_product_knows():
    page = (HOW_TO / "vertex-ai.md").read_text()
    listed = dict(re.findall(r"^\| `(NVIDIA_\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    assert listed.keys() == {*ACCELERATORS}
    for name, counts in listed.items():
        shapes = [shape for shape in EVERYTHING._shapes if shape.accelerator == name]
        known = {shape.count for shape in shapes if shape.num_nodes == 1}
        assert {int(count) for count in re.findall(r"\d+", counts)} == known
        assert ("Cloud Run" in counts) == (Engine.CLOUD_RUN in {s.engine for s in shapes})
