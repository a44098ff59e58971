"""Secrets of a brand at rest: sealed under ``RMN_DATA_KEY`` and the brand, opened only to be used.

What leaves the installation as proof is signed under a key of the same root; its public half goes with it.
What was sealed or signed under a key of ``RMN_DATA_KEY_BEFORE`` is still opened and still known.
"""

from __future__ import annotations

import base64

from cryptography.exceptions import InvalidSignature
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
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


def reseal(sealed: str, owner: str) -> str:
    """The same secret under the newest key, so that keys before it may be forgotten.

    Raises:
        NotConfigured: it was sealed under none of the keys there are.
    """
    return seal(unseal(sealed, owner), owner)


def sign(text: str) -> str:
    """An Ed25519 signature of this installation, as hexadecimal text."""
    return _pen(settings.RMN_DATA_KEY).sign(text.encode()).hex()


def public_key() -> str:
    """What proves this installation's signatures to others, as hexadecimal text; it may be told to everybody."""
    return _pen(settings.RMN_DATA_KEY).public_key().public_bytes_raw().hex()


def signed(text: str, signature: str, key: str) -> bool:
    """Whether the signature is of this text, and of the holder of that public key."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def signed_here(text: str, signature: str) -> bool:
    """Whether the signature is of this text, and of this installation: under today's key or one before it."""
    pens = map(_pen, data_keys())
    return any(signed(text, signature, pen.public_key().public_bytes_raw().hex()) for pen in pens)


def data_keys() -> list[str]:
    """The newest key, under which all is sealed, and those before it that are not forgotten yet."""
    return [settings.RMN_DATA_KEY, *settings.RMN_DATA_KEY_BEFORE]


def _pen(key: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_derived("rmn signatures", key))


def _box(owner: str) -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_derived(f"rmn secrets {owner}", key))) for key in data_keys()])


def _derived(purpose: str, key: str) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose.encode()).derive(key.encode())
