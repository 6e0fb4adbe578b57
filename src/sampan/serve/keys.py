"""API keys, of which only hashes are kept; and addresses that stand for a key for a while."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from sampan.errors import RequestError
from sampan.serve.store import ImageStore

URL_VALID_S = 3600
ANYBODY = "anybody"  # whose pictures they are where no keys are asked for
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def change(data: Path, *, add: str | None, remove: str | None, put: Callable[[str], None]) -> None:
    """Add or remove a key, or list them; `put` gets what is to be read.

    Raises:
        RequestError: The name is taken, or unknown.
    """
    store = ImageStore(data)
    try:
        if add is not None:
            put(_add(store, add))
        elif remove is not None:
            if not store.remove_key(remove):
                raise RequestError(f"there is no key `{remove}`", (), "--list-keys says which there are")
            put(remove)
        else:
            for name, _, _ in store.known_keys():
                put(name)
    finally:
        store.close()


def hash_key(key: str) -> str:
    """Return what is kept of a key. It holds 256 random bits, so that nothing slower than SHA-256 is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def owner(store: ImageStore, authorization: str | None) -> str | None:
    """Return the owner that a request's Authorization header names, or None where it names none."""
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        return None
    wanted = hash_key(key.strip())
    known = None
    for name, digest, created in store.known_keys():
        if hmac.compare_digest(digest, wanted):
            known = f"key:{name}:{created}"  # one that is made anew under an old name sees nothing of the old one's
    return known


def sign(secret: bytes, picture_id: str, now: float) -> str:
    """Return the query of an address under which one picture can be read without a key, for `URL_VALID_S`.

    Args:
        now: Time of the store's clock, which does not jump.
    """
    until = int(now) + URL_VALID_S
    return f"until={until}&signature={_signature(secret, picture_id, until)}"


def is_signed(secret: bytes, picture_id: str, until: str | None, signature: str | None, now: float) -> bool:
    """Say whether an address was made by `sign` and still holds; `now` as there."""
    if not until or not signature or not until.isascii() or not until.isdecimal() or len(until) > 12:
        return False
    right = _signature(secret, picture_id, int(until))
    return hmac.compare_digest(right.encode(), signature.encode()) and now <= int(until) <= now + URL_VALID_S


def _signature(secret: bytes, picture_id: str, until: int) -> str:
    return hmac.new(secret, f"{picture_id}/{until}".encode(), hashlib.sha256).hexdigest()


def _add(store: ImageStore, name: str) -> str:
    """Make a key and return it: this is the only time it can be read.

    Raises:
        RequestError: The name is not one, or taken.
    """
    if not _NAME.fullmatch(name):
        raise RequestError(f"`{name}` is no name for a key", "letters, digits and . _ - are taken, 64 at most")
    key = f"sk-sampan-{secrets.token_urlsafe(32)}"
    if not store.add_key(name, hash_key(key)):
        raise RequestError(f"there is a key `{name}` already", (), f"--remove-key {name} first")
    return key
