"""
Cloud Storage of the local cloud: its JSON API as the official clients use it, every access decided.
"""
