"""
What `make bench-control-plane` measures, small, and for what it must not lose: the figures are in
docs/benchmarks.md.
"""

import pytest
from benchmarks.control_plane_bursts import Load, burst
from benchmarks.control_plane_rows import checked, write_rows
from benchmarks.control_plane_sweep import BusyWorld


@pytest.fixture
def load(stack):
    return Load(stack)


def test_a_burst_with_repeats_through_a_death_loses_nothing_and_doubles_nothing(load):
    tenant = load.tenant(always_on=True)
    versions = load.upload(tenant, 10)

    def kill():
        load.fault("kill-function", "--on", "register-dataset")

    found = burst(load, {tenant: versions}, share_twice=0.3, meanwhile=kill)
    assert (found.num_objects, found.num_events) == (10, 13)
    assert (found.num_lost, found.num_twice, found.num_refused) == (0, 0, 0)


def test_events_that_come_evenly_are_registered_one_by_one(load):
    tenant = load.tenant(always_on=True)
    versions = load.upload(tenant, 5)
    found = burst(load, {tenant: versions}, share_twice=0.0, pause_s=0.1)
    assert found.is_clean() and found.num_events == 5
    assert found.wall_s > 4 * 0.1


def test_an_account_that_floods_keeps_nobody_else_from_being_registered(load):
    flooding, *others = [load.tenant(always_on=True) for _ in range(3)]
    found = burst(load, load.upload_for({flooding: 12} | dict.fromkeys(others, 1)))
    served = {name.split("/")[2] for name in found.latency_s}
    assert served == {tenant.bucket_name for tenant in (flooding, *others)}
    assert found.is_clean()


def test_a_sweep_over_running_jobs_writes_nothing_once_it_has_looked(tmp_path):
    world = BusyWorld(tmp_path / "registry.db", num_jobs=40, num_accounts=4)
    first, quiet = world.swept(), world.swept()
    assert first.num_writes > 0
    assert (quiet.num_writes, quiet.repairs, quiet.num_left) == (0, {}, 0)


def test_rows_are_checked_in_memory_that_does_not_grow_with_the_file(tmp_path):
    small, big = tmp_path / "small.jsonl", tmp_path / "big.jsonl"
    counts = [write_rows(small, 10**6), write_rows(big, 64 * 10**6)]
    reads = [checked(small), checked(big)]
    assert [read.num_rows for read in reads] == counts
    assert reads[1].peak_mib < 64
