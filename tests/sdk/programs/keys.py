"""Users with roles, keys that are shown once, and what a role may not do."""

from datetime import UTC, datetime, timedelta

import fireworks
from flavours import every


async def manage_users_and_keys(tenant):
    client = tenant.client
    accounts = await every(await client.accounts.list())
    assert len(accounts) == 1 and accounts[0].email
    user = await client.users.create(user_id="ci", role="contributor", service_account=True)
    assert (user.role, user.service_account) == ("contributor", True)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    asked = {"display_name": "nightly", "expire_time": tomorrow}
    made = await client.api_keys.create("ci", api_key=asked)
    assert made.key and made.key_id and made.secure
    theirs = tenant.client_of(made.key)
    assert "secure-sft" in str(await every(await theirs.datasets.list()))
    try:
        await theirs.users.list()
    except fireworks.PermissionDeniedError as error:
        assert "administer" in error.body["message"] or "manage users" in error.body["message"]
    else:
        raise AssertionError("a contributor has listed users")
    (listed,) = await every(await client.api_keys.list("ci"))
    assert listed.key is None and listed.key_id == made.key_id
    assert await client.api_keys.delete("ci", key_id=made.key_id) == {}
    try:
        await theirs.datasets.list()
    except fireworks.AuthenticationError:
        pass
    else:
        raise AssertionError("a revoked key still works")
    users = await every(await client.users.list(page_size=1))
    assert [one.name.rpartition("/")[2] for one in users] == ["ci", "owner"], users
