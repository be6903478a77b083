"""Wake-ups. Each waiter brings its own event, so that none can take another's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Listeners:
    """
    Whoever waits for one kind of change. A listener may be called for nothing: it looks again.

    Called on the event loop's thread, it only sets an event; what waits for that event runs after
    the caller's transaction has ended.
    """

    def __init__(self) -> None:
        self._wakers: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return bool(self._wakers)

    @contextmanager
    def listening(self, wake: Callable[[], None]) -> Iterator[None]:
        self._wakers.append(wake)
        try:
            yield
        finally:
            self._wakers.remove(wake)

    def notify(self) -> None:
        for wake in tuple(self._wakers):
            wake()
