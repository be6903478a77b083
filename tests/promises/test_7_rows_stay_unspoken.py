"""
Promise 7: what is in a customer's rows never reaches our logs, errors, metrics or events.
"""

import json

CANARY = "canary-that-nobody-may-repeat"

BAD_ROWS = "\n".join(
    [
        json.dumps({"messages": [{"role": CANARY, "content": CANARY}]}),
        json.dumps({"messages": CANARY}),
        json.dumps({CANARY: CANARY}),
        '{"messages": [' + CANARY,
        json.dumps({"prompt": CANARY, "completion": 7}),
        CANARY,
    ]
).encode()


def test_rows_that_are_refused_are_named_by_line_and_never_quoted(stack):
    tenant = stack.tenant()
    dataset = tenant.dataset_of(tenant.drop(BAD_ROWS))
    assert [problem["line"] for problem in dataset["rowCheck"]["problems"]] == list("123456")
    assert CANARY not in json.dumps(dataset)
    places = [path for path in stack.directory.rglob("*") if path.is_file()]
    spoken = [path for path in places if CANARY.encode() in path.read_bytes()]
    blobs = stack.directory / "storage" / "blobs"
    assert all(blobs in path.parents for path in spoken), spoken
