"""
Pub/Sub on loopback: topics, pull, streaming pull and push with the real service's delivery rules.
State is in the local cloud's database; what was published and not acknowledged outlives the
process, leases do not.
"""
