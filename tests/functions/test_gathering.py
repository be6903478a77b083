"""
Events that come while others are being handled are handled together; each request gets the answer
to its own event, whatever becomes of the others.
"""

import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock, Semaphore

import pytest

from sublet.errors import BetterAlone, MalformedEvent, TryAgain
from sublet.intake.gathering import Gathering

PATIENCE_S = 20
MOST = 4


class Desk:
    """Handles nothing before it is told to go on; keeps who came in which company."""

    def __init__(self) -> None:
        self.companies: list[list[str]] = []
        self.alone: list[str] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = Lock()
        self._begun, self._may_go_on = Semaphore(0), Semaphore(0)
        self.slow_begun, self.slow_may_go_on = Semaphore(0), Semaphore(0)
        self.gathering = Gathering(
            alone=self._handle_alone,
            together=self._handle_together,
            kind_of=lambda event: event[0],
            most=MOST,
            at_once_alone=2,
        )
        self._requests = ThreadPoolExecutor(24)

    def arrive(self, *events: str) -> list[Future]:
        return [self._requests.submit(self.gathering.handle, event) for event in events]

    def begun(self, count: int) -> None:
        for _ in range(count):
            assert self._begun.acquire(timeout=PATIENCE_S)

    def waiting(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.gathering.num_waiting != count:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def go_on(self, count: int = 100) -> None:
        self._may_go_on.release(count)

    def close(self) -> None:
        self.go_on()
        self._requests.shutdown()

    def _handle_together(self, events):
        with self._lock:
            self.companies.append(list(events))
        self._begun.release()
        assert self._may_go_on.acquire(timeout=PATIENCE_S)
        return [self._answer(event) for event in events]

    def _answer(self, event: str):
        if "defect" in event:
            raise ZeroDivisionError
        if "everybody's" in event:
            raise TryAgain("the broker is away")
        if "large" in event:
            return BetterAlone("large")
        if "malformed" in event:
            return MalformedEvent(event)
        return f"together: {event}"

    def _handle_alone(self, event: str) -> str:
        with self._lock:
            self.alone.append(event)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        if "slow" in event:
            self.slow_begun.release()
            assert self.slow_may_go_on.acquire(timeout=PATIENCE_S)
        with self._lock:
            self._at_once -= 1
        if "defect" in event:
            raise ZeroDivisionError
        return f"alone: {event}"


@pytest.fixture
def desk():
    made = Desk()
    yield made
    made.close()


def answers(futures) -> list:
    return [future.exception(PATIENCE_S) or future.result() for future in futures]


@pytest.fixture
def busy(desk):
    """Both of the companies that may be handled at a time are being handled."""
    desk.arrive("a first", "a second")
    desk.begun(2)
    return desk


def test_an_event_that_comes_alone_waits_for_nobody(desk):
    desk.go_on()
    assert answers(desk.arrive("a")) == ["together: a"]
    assert desk.companies == [["a"]]


def test_what_comes_meanwhile_is_handled_together_and_each_gets_its_own_answer(busy):
    late = busy.arrive("a1", "a2", "a3")
    busy.waiting(3)
    busy.go_on()
    assert answers(late) == ["together: a1", "together: a2", "together: a3"]
    assert sorted(map(len, busy.companies)) == [1, 1, 3]


def test_a_company_is_no_larger_than_it_may_be_and_nobody_is_left_behind(busy):
    names = [f"a{number}" for number in range(11)]
    late = busy.arrive(*names)
    busy.waiting(11)
    busy.go_on()
    assert answers(late) == [f"together: {name}" for name in names]
    assert sorted(map(len, busy.companies)) == [1, 1, 3, MOST, MOST]


def test_who_came_after_a_company_began_is_not_in_it(busy):
    """Nothing that was found out before an event came is told of it."""
    first = busy.arrive("a1")
    busy.waiting(1)
    busy.go_on(1)
    busy.begun(1)
    second = busy.arrive("a2")
    busy.waiting(1)
    busy.go_on()
    assert answers([*first, *second]) == ["together: a1", "together: a2"]
    assert busy.companies[2:] == [["a1"], ["a2"]]


def test_other_kinds_wait_for_nobody(busy):
    other = busy.arrive("b")
    busy.begun(1)
    busy.go_on()
    assert answers(other) == ["together: b"]


def test_one_bad_event_takes_nobody_along(busy):
    late = busy.arrive("a malformed", "a good", "a large")
    busy.waiting(3)
    busy.go_on()
    malformed, good, large = answers(late)
    assert isinstance(malformed, MalformedEvent)
    assert (good, large) == ("together: a good", "alone: a large")
    assert busy.alone == ["a large"]


def test_an_error_that_is_everybodys_is_each_ones(busy):
    late = busy.arrive("a1", "a is everybody's")
    busy.waiting(2)
    busy.go_on()
    assert [type(answer) for answer in answers(late)] == [TryAgain, TryAgain]
    assert busy.alone == []


def test_of_a_company_with_a_defect_only_the_one_that_has_it_fails(busy, capsys):
    late = busy.arrive("a1", "a defect", "a2")
    busy.waiting(3)
    busy.go_on()
    one, defect, two = answers(late)
    assert (one, two) == ("alone: a1", "alone: a2")
    assert isinstance(defect, ZeroDivisionError)
    assert re.search(
        r"ZeroDivisionError in _answer, line \d+, of 3 events; each is handled alone",
        capsys.readouterr().err,
    )


def test_only_so_many_are_handled_alone_at_once_and_the_others_go_on_beside_them(desk):
    desk.go_on()
    slow = desk.arrive(*(f"{kind} large slow" for kind in "abcd"))
    for _ in range(2):
        assert desk.slow_begun.acquire(timeout=PATIENCE_S)
    assert answers(desk.arrive("e")) == ["together: e"]
    desk.slow_may_go_on.release(4)
    assert len(answers(slow)) == 4
    assert desk.most_at_once == 2


def test_nothing_is_kept_of_what_was_handled(busy):
    late = busy.arrive(*(f"a{number}" for number in range(20)))
    busy.go_on()
    answers(late)
    busy.close()
    assert busy.gathering._queues == {}
