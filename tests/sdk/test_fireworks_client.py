"""
Promise 9: the unmodified `fireworks-ai` client works, sync and async, with its strict validation of
every answer on. `programs/` has what it does; each flavour is a tenant of its own.
"""


def test_the_client_does_all_that_it_can_sync_and_async(client, stack):
    tenants = {flavour: stack.tenant(watch=None) for flavour in ("sync", "async")}
    for tenant in tenants.values():
        tenant.drop()
        tenant.drop(name="other/other.jsonl")
    client.run("everything", tenants)
