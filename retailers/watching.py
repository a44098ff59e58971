"""Folders and addresses that are looked at by the clock: what is new there is loaded like an upload."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.db import transaction

from retailers import loads
from retailers.models import FeedLoad, FeedSource
from rmn.lib import outbound
from rmn.lib.errors import BadInput, RmnError

SETTLED = timedelta(seconds=30)  # a file younger than this may still be written
MOST_FILES = 1000


def look(source: FeedSource, now: datetime) -> list[FeedLoad]:
    """Load what is new at a source; the source's own row says when and what went wrong."""
    source.last_error = ""
    runs: list[FeedLoad] = []
    try:
        runs = list(_fetched(source) if "://" in source.address else _found(source, now))
    except (RmnError, OSError) as error:
        source.last_error = str(error)[:400]
    source.last_looked_at = now
    source.save(update_fields=["seen", "last_error", "last_looked_at"])
    return runs


def _found(source: FeedSource, now: datetime) -> Iterator[FeedLoad]:
    """New and changed files of a folder, or of a pattern such as /data/in/*.csv."""
    where = Path(source.address)
    if not where.is_absolute():
        raise BadInput(f"{source.address}: a folder's whole path is needed")
    paths = where.iterdir() if where.is_dir() else map(Path, glob.iglob(source.address))
    files = sorted(path for path in paths if path.is_file() and not path.name.startswith("."))[:MOST_FILES]
    if not files and not where.is_dir() and not glob.has_magic(source.address):
        raise BadInput(f"{source.address}: no such folder on the machine that loads feeds")
    for path in files:
        state = path.stat()
        mark = [state.st_size, state.st_mtime]
        if source.seen.get(path.name) == mark or now.timestamp() - state.st_mtime < SETTLED.total_seconds():
            continue
        with path.open("rb") as file:
            run = _load(source, path.name, iter(partial(file.read, 1 << 20), b""), state.st_mtime)
        source.seen[path.name] = mark
        if run is not None:
            yield run


def _fetched(source: FeedSource) -> Iterator[FeedLoad]:
    """The report at an https address (an object store's signed one too), where it has changed."""
    known = source.seen.get("etag")
    answer = outbound.fetch(
        "GET",
        source.address,
        headers={"If-None-Match": str(known)} if known else None,
        most_bytes=settings.RMN_UPLOAD_MAX_BYTES,
        timeout_s=300.0,
        redirects=2,
    )
    if answer.status == 304:
        return
    if answer.status != 200:
        raise BadInput(f"the address answers {answer.status}; is the report still there, and may we read it?")
    name = Path(unquote(urlsplit(source.address).path)).name or "report"
    run = _load(source, name, [answer.body])
    source.seen = {"etag": answer.headers.get("etag", "")}
    if run is not None:
        yield run


def _load(source: FeedSource, name: str, chunks: Iterable[bytes], modified: float | None = None) -> FeedLoad | None:
    """A load of a file that this brand has not loaded yet, queued."""
    path, digest = loads.keep_file(source.brand, chunks)
    same = FeedLoad.objects.filter(brand=source.brand, retailer=source.retailer, file_sha256=digest)
    if same.exists():
        return None
    config: dict[str, Any] = {"source": str(source.uuid)}
    if source.mapping is None:
        config["mapping"] = source.report
    if modified is not None:  # where the file does not say when its numbers were taken, its own time does
        os.utime(Path(settings.MEDIA_ROOT) / path, (modified, modified))
    with transaction.atomic():
        run = FeedLoad.objects.create(
            brand=source.brand,
            retailer=source.retailer,
            mapping=source.mapping,
            file_name=name[:240],
            file_path=path,
            file_sha256=digest,
            config=config,
        )
        run.enqueue()
    return run
