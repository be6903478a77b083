"""What is sent once more, after how long, and what never is."""

import socket
import threading
from datetime import UTC, datetime

import httpx
import pytest

from sublet import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NotConfigured,
    NotFound,
    TryAgain,
    UnexpectedAnswer,
    Unreachable,
)
from sublet.client.http import ApiClient
from sublet.client.retries import Attempts, Retries, advised_s

CUT = httpx.RemoteProtocolError("Server disconnected without sending a response.")
REFUSED = httpx.ConnectError("[Errno 111] Connection refused")


def ok(**body):
    return httpx.Response(200, json=body)


def busy(**headers):
    body = {"code": 14, "message": "no data account is free yet", "details": []}
    return httpx.Response(503, json=body, headers=headers)


def refused(status, code):
    return httpx.Response(status, json={"code": code, "message": "no", "details": []})


def test_a_passing_fault_is_waited_out_with_growing_pauses(script):
    plane = script(*[busy()] * 6, ok(name="n"))
    assert plane.api.get("datasets", "d") == {"name": "n"}
    assert plane.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


def test_a_fault_that_does_not_pass_is_raised_in_the_servers_words(script):
    plane = script(*[busy(**{"retry-after": "30"})] * 5)
    with pytest.raises(TryAgain, match="no data account is free yet") as raised:
        plane.api.get("datasets", "d")
    assert plane.slept == [30.0] * 4
    assert raised.value.__notes__ == [
        "GET https://plane/v1/accounts/acme/datasets/d: HTTP 503",
    ]


def test_a_fault_on_the_way_is_tried_three_times_in_all(script):
    plane = script(*[httpx.Response(502, text="Bad Gateway")] * 3)
    with pytest.raises(TryAgain):
        plane.api.get("datasets", "d")
    assert plane.slept == [0.5, 1.0]


def test_retry_after_is_waited_at_least(script):
    plane = script(busy(**{"retry-after": "7"}), busy(**{"retry-after": "0"}), ok())
    plane.api.get("datasets", "d")
    assert plane.slept == [7.0, 1.0]


def test_advice_to_wait_for_long_is_the_callers_to_take(script):
    plane = script(busy(**{"retry-after": "3600"}))
    with pytest.raises(TryAgain):
        plane.api.get("datasets", "d")
    assert plane.slept == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text, seconds):
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert advised_s({"retry-after": text}, now) == seconds


def test_callers_that_failed_together_do_not_come_back_together():
    slept = []
    for chance in (0.0, 0.5, 1.0):
        retries = Retries(sleep=slept.append, jitter=lambda chance=chance: chance)
        assert Attempts(retries).wait(TryAgain("busy"))
    assert slept == [0.5, 0.4375, 0.375]


def test_whoever_waits_can_be_told_why(script):
    plane = script(busy(**{"retry-after": "5"}), ok())
    plane.api.get("datasets", "d")
    assert plane.told == ["no data account is free yet: 5 s"]


def test_x_should_retry_decides(script):
    never = script(busy(**{"x-should-retry": "false"}))
    with pytest.raises(TryAgain):
        never.api.get("datasets", "d")
    invalid = httpx.Response(
        400, json={"code": 3, "message": "no"}, headers={"x-should-retry": "true"}
    )
    once_more = script(invalid, ok())
    once_more.api.get("datasets", "d")
    assert len(once_more.slept) == 1


def test_a_lost_race_is_run_again_and_a_taken_name_is_not(script):
    plane = script(refused(409, 10), ok())
    plane.api.create("datasets", {"datasetId": "d"})
    taken = script(refused(409, 6))
    with pytest.raises(AlreadyExists):
        taken.api.create("datasets", {"datasetId": "d"})
    assert issubclass(AlreadyExists, Conflict)


def test_a_create_whose_answer_was_lost_is_asked_for_again_under_the_same_name(script):
    plane = script(CUT, ok(name="n"))
    body, query = {"dataset": "d"}, {"supervisedFineTuningJobId": "j"}
    assert plane.api.create("supervisedFineTuningJobs", body, query) == {"name": "n"}
    first, second = plane.asked
    assert (first.url, first.content) == (second.url, second.content)


@pytest.mark.parametrize("lost", [CUT, httpx.Response(502, html="<h1>Bad Gateway</h1>")])
def test_what_would_happen_twice_is_not_asked_for_twice(script, lost):
    plane = script(lost)
    with pytest.raises(TryAgain):
        plane.api.create("users/u/apiKeys", {"apiKey": {}}, is_idempotent=False)


@pytest.mark.parametrize("fault", [REFUSED, busy()], ids=["never sent", "had no effect"])
def test_what_cannot_have_happened_is_asked_for_again(script, fault):
    plane = script(fault, ok(key="sk-2"))
    assert plane.api.create("users/u/apiKeys", {}, is_idempotent=False) == {"key": "sk-2"}


def test_a_delete_whose_answer_was_lost_is_done_when_nothing_is_there(script):
    script(CUT, refused(404, 5)).api.delete("datasets", "d")
    with pytest.raises(NotFound):
        script(refused(404, 5)).api.delete("datasets", "d")


def test_an_answer_that_takes_too_long_is_not_asked_for_again(script):
    with pytest.raises(Unreachable, match="ReadTimeout"):
        script(httpx.ReadTimeout("")).api.get("datasets", "d")


def test_a_connection_that_breaks_on_a_real_socket_is_one_that_can_be_repeated():
    """The names of httpx's errors are what the rules above stand on."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"):
            connection, _ = listener.accept()
            connection.recv(65536)
            if answer:
                connection.sendall(answer + b'Content-Length: 12\r\n\r\n{"name":"n"}')
            connection.close()
        listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    slept = []
    with ApiClient(url, "sk", "acme", retries=Retries(sleep=slept.append)) as api:
        assert api.get("datasets", "d") == {"name": "n"}
        thread.join()
        assert len(slept) == 1
        with pytest.raises(Unreachable, match=f"nobody answers at {url}: .*refused"):
            api.get("datasets", "d")
        assert len(slept) == 3


# --- where the key goes ---------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://plane.example", "plane.example", "ftp://plane", "http://"])
def test_the_key_is_not_sent_in_clear_over_a_network(url):
    with pytest.raises(NotConfigured, match="base URL"):
        ApiClient(url, "sk-1")


def test_the_key_does_not_follow_a_redirect(script):
    away = httpx.Response(302, headers={"location": "https://elsewhere/"})
    plane = script(away)
    with pytest.raises(UnexpectedAnswer, match="redirects to https://elsewhere/"):
        plane.api.get("datasets", "d")
    assert [request.url.host for request in plane.asked] == ["plane"]


def test_what_is_no_control_plane_is_said_to_be_none(script):
    page = httpx.Response(200, html="<h1>Welcome</h1>")
    with pytest.raises(UnexpectedAnswer, match="is that a control plane"):
        script(page).api.get("datasets", "d")


def test_a_name_cannot_leave_its_place_in_the_path(script):
    plane = script(ok(), ok())
    plane.api.get("datasets", "../../other")
    plane.api.get("datasets", "accounts/acme/datasets/d")
    assert [request.url.raw_path for request in plane.asked] == [
        b"/v1/accounts/acme/datasets/..%2F..%2Fother",
        b"/v1/accounts/acme/datasets/d",
    ]


def test_a_page_token_is_sent_back_as_it_came_and_nothing_else_changes(script):
    plane = script(
        ok(datasets=[{"name": "a"}], nextPageToken="t=1&x"),
        ok(datasets=[{"name": "b"}], nextPageToken=""),
    )
    listed = [one["name"] for one in plane.api.list("datasets", filter='state="READY"')]
    assert listed == ["a", "b"]
    first, second = (dict(request.url.params) for request in plane.asked)
    assert second == {**first, "pageToken": "t=1&x"}


def test_a_refusal_is_not_repeated(script):
    with pytest.raises(InvalidRequest):
        script(refused(400, 3)).api.get("datasets", "d")
