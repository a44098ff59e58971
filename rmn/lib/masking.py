"""Personal data kept out of what is written down: rows, logs, messages to workers, errors.

A model names the fields that hold what people or models wrote (``masked``) and those that hold names of
things (``masked_names``); both are masked under the brand's key before a row is written, whichever door it
came by. What belongs to no brand (logs, errors) is looked through for structured kinds alone, fast and of
bounded length, and is left out where it cannot be looked through.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery
from django.apps import apps
from django.conf import settings
from django.db import models
from django.db.models.signals import pre_save

from rmn.lib import pii
from rmn.lib.errors import BadInput

LONGEST = 16_384  # characters of a line or an error that are looked through; the rest is left out
DEEPEST = 6
PLAIN = re.compile(r"[A-Za-z_.]*|-?\d{1,7}\.\d{2}|-?\d{1,5}")  # a name of ours, an amount: most of what is logged
FILE = re.compile(r"(?i)(.*?)((?:\.(?:csv|tsv|txt|json|jsonl|ndjson|xlsx?|xml|parquet|gz|zip|pdf|png|jpe?g|webp))*)")
HOST = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]{2,39}")
UNREAD = "[left out: it could not be looked through]"
OWN_NETWORKS = [ipaddress.ip_network(net) for net in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "0.0.0.0/32", "::/127", "fc00::/7", "fe80::/10")]  # fmt: skip
Masker = Callable[[Any], Callable[..., pii.Masked]]


def line(text: str) -> str:
    """Text for logs, errors and audit lines: structured kinds masked under the installation's key; never raises."""
    if len(text) < 80 and PLAIN.fullmatch(text):
        return text
    try:
        known = {host for host in HOST.findall(text, 0, LONGEST) if _is_ours(host)}
        masked = pii.mask(text[:LONGEST], settings.RMN_DATA_KEY, known, prose=False).text
    except Exception:  # noqa: BLE001  # a log line must not stop the work, nor come out unread
        return UNREAD
    return masked if len(text) <= LONGEST else f"{masked} [{len(text) - LONGEST:,} more characters left out]"


def _is_ours(host: str) -> bool:
    """An address of this machine or the network it stands in is nobody's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in net for net in OWN_NETWORKS if net.version == address.version)


def told(value: Any, mask: Callable[[str], str] = line, depth: int = 0) -> Any:
    """A value as JSON has it, each text in it masked; what lies deeper than anything we write is left out."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, bool | int | float) or value is None:
        return value
    if depth > DEEPEST:
        return UNREAD
    if isinstance(value, dict):
        return {mask(key) if isinstance(key, str) else key: told(one, mask, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [told(one, mask, depth + 1) for one in value]
    return value


def key(brand: Any) -> str:
    """What tags are keyed by: the brand, or the installation where there is none."""
    return settings.RMN_DATA_KEY if brand is None else f"{settings.RMN_DATA_KEY}:{brand.uuid}"


def of(brand: Any, *, prose: bool = True) -> Callable[[str], str]:
    """Masks what is written down about a brand: sentences as prose unless told otherwise, the rest for structured kinds."""

    def one(text: str) -> str:
        if len(text) < 80 and PLAIN.fullmatch(text):
            return text
        return pii.mask(text, key(brand), prose=prose and text.count(" ") > 1).text

    return one


def logged(value: Any) -> Any:
    """A fact of a log line; what is neither a number nor a text is told as text first."""
    try:
        return told(value if isinstance(value, str | bool | int | float | dict | list | tuple | None) else str(value))
    except Exception:  # noqa: BLE001  # as in ``line``
        return UNREAD


# -- rows


def fields(model: type[models.Model]) -> dict[str, bool]:
    """The fields of a model that are masked, and whether they hold prose."""
    prose: tuple[str, ...] = getattr(model, "masked", ())
    names: tuple[str, ...] = getattr(model, "masked_names", ())
    return {**dict.fromkeys(prose, True), **dict.fromkeys(names, False)}


def tables() -> list[type[models.Model]]:
    return [model for model in apps.get_models() if fields(model)]


def watch(masker: Masker) -> None:
    """Mask what a model names before each of its rows is saved; if that fails, nothing is saved.

    Args:
        masker: of a brand, or of None: takes a text and ``prose``.
    """

    def before(sender: Any, instance: Any, raw: bool = False, update_fields: Any = None, **_: Any) -> None:
        written = fields(sender)
        if raw or not written:
            return
        mask = None
        for name, prose in written.items():
            value = getattr(instance, name)
            if not value or (update_fields is not None and name not in update_fields):
                continue
            mask = mask or masker(_brand(instance))
            new = file_name(value, mask) if name == "file_name" else told(value, partial(_text, mask, prose))
            most = getattr(sender._meta.get_field(name), "max_length", None)
            setattr(instance, name, new[:most] if most else new)

    pre_save.connect(before, weak=False, dispatch_uid="rmn_masking")


def _text(mask: Callable[..., pii.Masked], prose: bool, text: str) -> str:
    return mask(text, prose=prose).text


def _brand(row: Any) -> Any:
    return getattr(row, "brand", None) or getattr(getattr(row, "run", None), "brand", None)


def file_name(text: str, mask: Callable[..., pii.Masked]) -> str:
    """The name of a file, its ending as it was: readers go by it."""
    found = FILE.fullmatch(text)
    stem, ending = (found[1], found[2]) if found else (text, "")
    apart = mask(stem.replace("_", " "))  # 415_555_0134 is a telephone too
    return (apart.text if apart.entities else stem) + ending


# -- messages to workers


class Messenger(Celery):
    """A Celery whose messages carry ids and nothing else: brokers, results and logs show what is sent."""

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]  # as Celery has it, in fewer words
        """Send, if arguments are numbers, flags or keys.

        Raises:
            BadInput: an argument is text that may be somebody's.
        """
        for one in (*(args or ()), *(kwargs or {}).values()):
            if not (
                one is None or isinstance(one, bool | int | float) or (isinstance(one, str) and KEY.fullmatch(one))
            ):
                raise BadInput(f"{name}: an argument is no id; keep it in a row and send the row's key")
        return super().send_task(name, args=args, kwargs=kwargs, **options)


KEY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{1,12}|\*")
