"""
Promise 9: the unmodified `fireworks-ai` client works, sync and async, with its strict validation of
every answer on.
"""

import pytest

FLAVOURS = pytest.mark.parametrize("flavour", ["sync", "async"])


@FLAVOURS
def test_the_client_goes_through_the_whole_secure_flow(client, stack, flavour):
    tenant = stack.tenant(watch=None)
    tenant.drop()
    client.run("secure_flow", tenant, flavour, tenant.bucket_name)


@FLAVOURS
def test_every_error_class_is_raised_where_its_name_says_and_at_once(client, stack, flavour):
    tenant, other = stack.tenant(watch=None), stack.tenant(watch=None)
    tenant.drop()
    tenant.drop(name="data/other.jsonl")
    client.run("errors", tenant, flavour, tenant.bucket_name, other.name)


@FLAVOURS
def test_the_client_manages_users_and_keys(client, stack, flavour):
    client.run("keys", stack.tenant(watch=None), flavour)
