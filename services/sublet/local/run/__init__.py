"""
Cloud Run jobs of the local cloud: an execution is a process with an identity and nothing else.
"""
