"""The clock that a local cloud shares with its units: a file that says how far it was moved."""

from datetime import UTC, datetime, timedelta

from sublet.clock import MovableClock

SOON = timedelta(minutes=1)


def ahead(clock: MovableClock) -> timedelta:
    return clock.now() - datetime.now(UTC)


def test_every_move_is_seen_by_every_process_that_shares_the_file(tmp_path):
    """Its content is remembered, and the file made anew at each move."""
    moved, other = (MovableClock(tmp_path / "offset") for _ in range(2))
    assert ahead(other) < SOON
    for hours in (1, 2, 3):
        moved.advance(timedelta(hours=1))
        for clock in (moved, other):
            assert timedelta(0) <= ahead(clock) - timedelta(hours=hours) + SOON < 2 * SOON
