"""After each promise test: what must stay where it is has been repeated nowhere."""

import pytest
from canaries import ROW_CANARY, TOKEN, arguments_of, spoken_in


@pytest.fixture(autouse=True)
def nothing_is_repeated(request, tmp_path):
    """
    In logs, registry, events, audit, errors, receipts, models, homes, process arguments. (With
    `--on google` registry and events are in the memory of the emulators, which nobody reads here.)
    """
    running = request.getfixturevalue("stack") if "stack" in request.fixturenames else None
    yield
    directory = running.directory if running else tmp_path
    assert spoken_in(directory) == {}
    if running:
        arguments = arguments_of(running.pid)
        secrets = (directory / "secrets").glob("*")
        assert ROW_CANARY not in arguments and not TOKEN.search(arguments.encode())
        assert not [path.name for path in secrets if path.read_text() in arguments]
