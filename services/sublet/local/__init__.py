"""
A Google Cloud on loopback for the official client libraries, unmodified. It enforces IAM: a token
is resolved to a principal, its boundary and its expiry, and checked against policies and
conditions.
"""
