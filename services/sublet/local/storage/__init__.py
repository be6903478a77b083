"""
Cloud Storage of the local cloud: its JSON API, and the XML API as far as the official clients use
it, every access decided.
"""
