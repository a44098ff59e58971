"""Secrets of a brand at rest: sealed under ``RMN_DATA_KEY`` and the brand, opened only to be used."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from rmn.lib.errors import NotConfigured


def seal(secret: str, owner: str) -> str:
    """A secret as text that only this installation can open, and only for the same owner (a brand's UUID)."""
    return _box(owner).encrypt(secret.encode()).decode()


def unseal(sealed: str, owner: str) -> str:
    """The secret again.

    Raises:
        NotConfigured: it was sealed under another key, or for another owner.
    """
    try:
        return _box(owner).decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise NotConfigured(
            "a stored secret cannot be opened: RMN_DATA_KEY has changed; enter the secret again"
        ) from None


def _box(owner: str) -> Fernet:
    kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=f"rmn secrets {owner}".encode())
    return Fernet(base64.urlsafe_b64encode(kdf.derive(settings.RMN_DATA_KEY.encode())))
