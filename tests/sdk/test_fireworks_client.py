"""
Promise 9: the unmodified `fireworks-ai` client works, sync and async, with its strict validation of
every answer on. `programs/` has what it does; each flavour is a tenant of its own.
"""

import json

ASKED = {"role": "user", "content": "q"}
ANSWERS = [{"role": "assistant", "content": text} for text in ("a", "b")]
GROUP = {
    "samples": [
        {"messages": [ASKED, answer], "evals": {"score": float(score)}}
        for score, answer in enumerate(ANSWERS)
    ]
}
PAIR = {
    "input": {"messages": [ASKED]},
    "preferred_output": ANSWERS[:1],
    "non_preferred_output": ANSWERS[1:],
}


def test_the_client_does_all_that_it_can_sync_and_async(client, stack):
    tenants = {flavour: stack.tenant(watch=None) for flavour in ("sync", "async")}
    for tenant in tenants.values():
        tenant.drop()
        tenant.drop(name="other/other.jsonl")
        for name, row in (("rl/rewarded.jsonl", GROUP), ("dpo/preferred.jsonl", PAIR)):
            tenant.drop((json.dumps(row) + "\n").encode() * 3, name=name)
    client.run("everything", tenants)
