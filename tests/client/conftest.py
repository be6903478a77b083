import httpx
import pytest

from sublet import LLM, Client
from sublet.client.http import ApiClient
from sublet.client.retries import Retries


@pytest.fixture
def api(served, server, monkeypatch):
    """The control plane, and an environment that says where it is."""
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)
    return served


@pytest.fixture
def client(api):
    with Client() as made:
        yield made


@pytest.fixture
def llm(client) -> LLM:
    return LLM("tiny-random", client=client)


class Script:
    """A control plane that answers what it was told to, and keeps what it was asked."""

    def __init__(self, *answers) -> None:
        self._answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.slept: list[float] = []
        self.told: list[str] = []
        retries = Retries(
            sleep=self.slept.append,
            jitter=lambda: 0.0,
            notice=lambda failure, pause_s: self.told.append(f"{failure}: {pause_s:g} s"),
        )
        transport = httpx.MockTransport(self._answer)
        self.api = ApiClient("https://plane", "sk-1", "acme", retries=retries, transport=transport)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def script():
    return Script
