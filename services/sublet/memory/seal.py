"""A seal for one process: unreadable to a search for the secret, and nothing more."""

from base64 import b64decode, b64encode


class MemorySeal:
    def seal(self, secret: str) -> str:
        return b64encode(secret.encode()[::-1]).decode()

    def unseal(self, sealed: str) -> str:
        return b64decode(sealed)[::-1].decode()
