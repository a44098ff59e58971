"""Backups that any of the databases can read: the whole installation, or one tenant alone.

A backup is a folder: ``manifest.json``, one file of rows for each table and the files below
``files/`` and ``adapters/``. Rows are read in one snapshot and written as JSON lines, so that what
was saved from SQLite can be restored into PostgreSQL. A whole backup keeps its keys and goes into an
empty database; one tenant's rows get new keys beside what is there, and refer to retailers, people
and shared rows by their names. Nothing of a secret key is in it: sealed values stay sealed.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, tzinfo
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.core.cache import cache
from django.core.management.color import no_style
from django.db import IntegrityError, connection, models, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from agents.inference import adapters as folders
from agents.inference.errors import BadAdapter
from agents.models import Adapter
from feedback.models import Export
from retailers import audit
from retailers.models import AuditHead, Brand, IdempotencyKey, Membership
from rmn.lib import append_only, sealing
from rmn.lib.errors import BadInput
from training.models import TrainingRun

FORMAT = 1
AT_ONCE = 2000
# Logins and signs of life are of the running system; who restores logs in again.
LEFT_OUT = {"sessions.Session", "rmn.Heartbeat"}
# Rows of no brand that rows of a brand name, and what they are known by in every installation.
# The same name alone makes nobody the same person: an account is known by the instant it was opened, too.
NAMES = {"auth.User": ("username", "date_joined"), "retailers.Retailer": ("slug",)}

Report = Callable[[str], None]


def brand_of(slug: str) -> Brand:
    """The brand of that name.

    Raises:
        BadInput: there is none.
    """
    found = Brand.objects.filter(slug=slug).first()
    if found is None:
        raise BadInput(
            f"{slug}: no such brand; {', '.join(Brand.objects.values_list('slug', flat=True)[:20]) or 'there is none'}"
        )
    return found


def tables() -> list[type[models.Model]]:
    found = [
        model for model in apps.get_models(include_auto_created=True) if model._meta.managed and not model._meta.proxy
    ]
    return sorted((model for model in found if model._meta.label not in LEFT_OUT), key=lambda model: model._meta.label)  # fmt: skip


def wall(model: type[models.Model]) -> str | None:
    """The look-up that leads from a row to its brand; none for rows of the installation."""
    if model is Brand:
        return "pk"
    if getattr(model, "instance_type", None) is Brand:  # its history
        return "id"
    names = {field.name: field for field in model._meta.concrete_fields if field.is_relation}
    if "brand" in names:
        return "brand_id"
    if model._meta.auto_created:  # a link between two rows of one brand
        for field in names.values():
            if field.related_model is not None and wall(field.related_model):
                return f"{field.name}__brand_id"
    return None


def targets() -> set[type[models.Model]]:
    """Tables whose rows may be of no brand and be named by a brand's rows."""
    found = {
        field.related_model
        for model in tables()
        if wall(model)
        for field in model._meta.concrete_fields
        if field.is_relation and field.related_model is not None
    }
    return {model for model in found if wall(model) is None or (wall(model) == "brand_id" and model._meta.get_field("brand").null)}  # fmt: skip


# -- writing


def dump(folder: Path, brand: Brand | None = None, say: Report = lambda _: None) -> dict[str, Any]:
    """Write a backup to a folder that appears whole or not at all; returns its manifest.

    Args:
        brand: one tenant alone, with what its rows refer to; people come without their passwords.

    Raises:
        BadInput: the folder is there already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder}: is not empty; name a new folder")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "rows").mkdir(parents=True)
    try:
        with _snapshot():
            written = {model._meta.label: _write(part, model, _of(model, brand), brand, say) for model in tables()}
            if brand is not None:
                _write_named(part, brand, written)
            heads = AuditHead.objects.filter(brand=brand) if brand is not None else AuditHead.objects.all()
            manifest: dict[str, Any] = {
                "format": FORMAT,
                "at": timezone.now().isoformat(timespec="seconds"),
                "tenant": {"slug": brand.slug, "uuid": str(brand.uuid)} if brand else None,
                "engine": connection.vendor,
                "migrations": _migrations(),
                "data_key": _fingerprint(settings.RMN_DATA_KEY),
                "heads": list(heads.order_by("chain").values("chain", "sequence", "hash")),
                "tables": {label: told for label, told in written.items() if told["rows"]},
            }
            copied = list(_files(brand))
        manifest["files"] = {name: _copied(source, part / name) for name, source in _each(copied) if source.is_file()}
        (part / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


@contextmanager
def _snapshot() -> Iterator[None]:
    """One moment for all tables, and nobody who writes meanwhile waits: that is in the next backup."""
    if connection.in_atomic_block:
        yield
        return
    mode = getattr(connection, "transaction_mode", None)
    try:
        if connection.vendor == "sqlite":
            connection.transaction_mode = None  # type: ignore[attr-defined]  # a reader's transaction; ours usually begin as a writer's
        with transaction.atomic():
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield
    finally:
        if connection.vendor == "sqlite":
            connection.transaction_mode = mode  # type: ignore[attr-defined]


def _of(model: type[models.Model], brand: Brand | None) -> models.QuerySet[Any]:
    rows = model._base_manager.order_by("pk")
    if brand is None:
        return rows
    path = wall(model)
    return rows.filter(**{path: brand.pk}) if path else rows.none()


def _write(part: Path, model: type[models.Model], rows: Any, brand: Brand | None, say: Report) -> dict[str, Any]:
    fields = model._meta.concrete_fields
    names = [field.attname for field in fields]
    path = part / "rows" / f"{model._meta.label}.jsonl.gz"
    count = 0
    blind = names.index("password") if brand is not None and "password" in names else -1
    with gzip.open(path, "at", compresslevel=1, encoding="utf-8") as file:
        for row in rows.values_list(*names).iterator(chunk_size=AT_ONCE):
            values = list(row)
            if blind >= 0:
                values[blind] = "!"
            file.write(json.dumps(values, ensure_ascii=False, default=_text, separators=(",", ":")) + "\n")
            count += 1
            if not count % 100_000:
                say(f"{model._meta.label}: {count:,} rows")
    told = {"columns": names, "rows": count, "sha256": _sha256(path)}
    if not count:
        path.unlink()
    return told


def _write_named(part: Path, brand: Brand, written: dict[str, dict[str, Any]]) -> None:
    """Add the rows of no brand that the tenant's rows name, and those that these name."""
    shared = targets()
    wanted: dict[type[models.Model], set[Any]] = {model: set() for model in shared}
    for model in tables():
        rows = _of(model, brand)
        for field in _references(model, shared):
            keys = rows.exclude(**{field.attname: None}).order_by().values_list(field.attname, flat=True).distinct()
            wanted[field.related_model] |= set(keys.iterator())
    done: dict[type[models.Model], set[Any]] = {model: set() for model in shared}
    while any(wanted[model] - done[model] for model in shared):
        for model in sorted(shared, key=lambda one: one._meta.label):
            new = wanted[model] - done[model]
            done[model] |= new
            rows = model._base_manager.filter(pk__in=new).order_by("pk")
            if wall(model):
                rows = rows.filter(brand=None)
            for field in _references(model, shared):
                found = rows.exclude(**{field.attname: None}).order_by().values_list(field.attname, flat=True)
                wanted[field.related_model] |= set(found)
            if new:
                before = written[model._meta.label]["rows"]
                told = _write(part, model, rows, brand, lambda _: None)
                told["rows"] += before
                written[model._meta.label] = told


def _references(model: type[models.Model], to: Collection[type[models.Model]]) -> list[Any]:
    return [
        field
        for field in model._meta.concrete_fields
        if field.is_relation and field.related_model is not None and field.related_model in to
    ]


def _text(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal | UUID | tzinfo):  # the schedules' time zone is one
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be saved")


def _files(brand: Brand | None) -> Iterator[tuple[str, Path]]:
    """Names in the backup and where they lie: folders or single files."""
    media, adapters = Path(settings.MEDIA_ROOT), Path(settings.RMN_ADAPTERS)
    if brand is None:
        yield "files", media
        yield "adapters", adapters
        return
    for name in ("feeds", "datasets", "evidence"):
        yield f"files/{name}/{brand.uuid}", media / name / str(brand.uuid)
    for key in Export.objects.filter(brand=brand).values_list("pk", flat=True):
        yield f"files/exports/{key}", media / "exports" / str(key)
    for digest in _own_adapters(brand):
        yield f"adapters/{digest}", adapters / digest


def _own_adapters(brand: Brand) -> set[str]:
    """Adapter folders that no row of another brand, or of none, names too."""
    others = Adapter.objects.exclude(brand=brand).values("digest")
    return set(Adapter.objects.filter(brand=brand).exclude(digest__in=others).values_list("digest", flat=True))


def _each(places: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    for name, place in places:
        for folder, inner, files in os.walk(place):
            inner[:] = [one for one in inner if not one.startswith(".")]  # a copy on its way
            for file in files:
                if not file.startswith(".") and not file.endswith(".part"):
                    source = Path(folder) / file
                    yield f"{name}/{source.relative_to(place).as_posix()}", source


def _copied(source: Path, target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return _sha256(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _migrations() -> dict[str, str]:
    """The newest migration of each app: rows fit tables of the same."""
    applied = MigrationRecorder(connection).applied_migrations()
    return {app: name for app, name in sorted(applied) if app in apps.app_configs}  # the last of each stays


def _fingerprint(key: str) -> str:
    return hmac.new(key.encode(), b"rmn backup", hashlib.sha256).hexdigest()[:16]


# -- reading


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a backup whose every file was found whole.

    Raises:
        BadInput: it is no backup, of another release, or a file of it is missing or damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{folder}: no manifest.json there; name the folder that make backup wrote") from None
    except ValueError as error:
        raise BadInput(f"{folder / 'manifest.json'}: not JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BadInput(f"{folder}: not a backup of this format ({FORMAT})")
    ours = _migrations()
    other = sorted(app for app in ours if manifest["migrations"].get(app) != ours[app])
    if other:
        theirs = {app: manifest["migrations"].get(app) for app in other}
        raise BadInput(f"{folder}: made by another release ({theirs}); restore it with that release, then migrate")
    for label, told in manifest["tables"].items():
        _whole(folder / "rows" / f"{label}.jsonl.gz", told["sha256"])
    for name, sha256 in manifest["files"].items():
        if ".." in Path(name).parts or Path(name).parts[0] not in ("files", "adapters"):
            raise BadInput(f"{folder}: the manifest names {name}, which lies elsewhere")
        _whole(folder / name, sha256)
    return manifest


def _whole(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise BadInput(f"{path}: missing from the backup; nothing was restored")
    if _sha256(path) != sha256:
        raise BadInput(f"{path}: damaged, it is not what was saved; nothing was restored")


def load(folder: Path, tenant: str = "", say: Report = lambda _: None) -> dict[str, Any]:
    """Restore a backup into an empty, migrated database, or one tenant of it beside the others.

    All rows come in one transaction: whole, or not at all. Files come first; they are named by
    content or by unguessable ids, so that those of a restore that failed are in nobody's way.

    Raises:
        BadInput: the backup is not whole; the database is not empty; the tenant is there already.
    """
    manifest = read(folder)
    saved = manifest["tenant"]
    if saved and tenant and tenant != saved["slug"]:
        raise BadInput(f"{folder}: is an export of {saved['slug']}, not of {tenant}")
    slug = tenant or (saved or {}).get("slug", "")
    if not slug and (Brand.objects.exists() or Membership.objects.exists()):
        raise BadInput("the database is not empty: restore into a new one, or one tenant with --brand")
    if slug and Brand.objects.filter(slug=slug).exists():
        raise BadInput(f"{slug} is there already: erase_tenant takes it out, after an export")
    try:
        with connection.constraint_checks_disabled(), transaction.atomic(), append_only.opened():
            rows = _Tenant(folder, manifest, slug, say).load() if slug else _load_all(folder, manifest, say)
            _reset_sequences()
    except IntegrityError as error:
        cause = str(error).splitlines()[0]
        raise BadInput(f"{folder}: a row of it does not fit what is here ({cause}); nothing was restored") from None
    apps.get_model("contenttypes", "ContentType").objects.clear_cache()  # type: ignore[attr-defined]
    brand = Brand.objects.get(slug=slug) if slug else None
    wanted = {name for name, _ in _tenant_files(manifest, brand)} if brand else set(manifest["files"])
    for name in sorted(wanted):
        target = _place(name)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target)
    cache.clear()
    return {"rows": rows, "files": len(wanted), **check(manifest, brand)}


def _place(name: str) -> Path:
    root, _, rest = name.partition("/")
    return Path(settings.MEDIA_ROOT if root == "files" else settings.RMN_ADAPTERS) / rest


def _tenant_files(manifest: dict[str, Any], brand: Brand) -> Iterator[tuple[str, str]]:
    folders = tuple(f"{name}/" for name, _ in _files(brand))
    shared = Adapter.objects.filter(brand=brand).values_list("digest", flat=True)
    folders += tuple(f"adapters/{digest}/" for digest in shared)
    yield from ((name, sha) for name, sha in manifest["files"].items() if name.startswith(folders))


def check(manifest: dict[str, Any], brand: Brand | None = None) -> dict[str, Any]:
    """What a restore must leave: chains whole and ending where they ended, adapters of the right digest."""
    chains = [head["chain"] for head in manifest["heads"] if brand is None or head["chain"] == brand.slug]
    ends = {head["chain"]: head for head in manifest["heads"]}
    found = [audit.check(chain, ends[chain] if ends[chain]["sequence"] else None) for chain in chains]
    adapters = Adapter.objects.filter(brand=brand) if brand else Adapter.objects.all()
    whole, bad = 0, []
    saved = {name.split("/")[1] for name in manifest["files"] if name.startswith("adapters/")}
    for name in sorted(saved & set(adapters.values_list("digest", flat=True))):
        try:
            if folders.digest(Path(settings.RMN_ADAPTERS) / name) != name:
                raise BadAdapter(f"{name}: another digest")
        except BadAdapter:
            bad.append(name)
        else:
            whole += 1
    return {
        "chains": {"whole": sum(one["broken"] is None for one in found), "broken": [one for one in found if one["broken"] is not None]},
        "adapters": {"whole": whole, "broken": bad},
        "secrets_open": manifest["data_key"] in map(_fingerprint, sealing.data_keys()),
    }  # fmt: skip


def _lines(folder: Path, model: type[models.Model], manifest: dict[str, Any]) -> Iterator[list[Any]]:
    told = manifest["tables"].get(model._meta.label)
    if told is None:
        return
    if told["columns"] != [field.attname for field in model._meta.concrete_fields]:
        raise BadInput(f"{folder}: {model._meta.label} has other columns than here")
    with gzip.open(folder / "rows" / f"{model._meta.label}.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _load_all(folder: Path, manifest: dict[str, Any], say: Report) -> int:
    for model in tables():  # what migrations and the first start have written
        model._base_manager.all()._raw_delete(using="default")  # type: ignore[attr-defined]
    return sum(_insert(model, _lines(folder, model, manifest), say) for model in tables())


class _Tenant:
    """One brand's rows on their way into a database that has others."""

    def __init__(self, folder: Path, manifest: dict[str, Any], slug: str, say: Report) -> None:
        self.folder, self.manifest, self.slug, self.say = folder, manifest, slug, say
        brands = {row[_at(Brand, "slug")]: row for row in _lines(folder, Brand, manifest)}
        if slug not in brands:
            raise BadInput(f"{folder}: holds no brand {slug}; it has {', '.join(sorted(brands)) or 'none'}")
        self.brand = brands[slug][_at(Brand, "id")]
        self.shared = targets()
        # an integer key is moved past those that are taken; a UUID is nobody else's
        self.offsets = {model: self._taken(model) for model in tables() if wall(model)}
        self.named: dict[type[models.Model], dict[Any, list[Any]]] = {}
        self.known: dict[tuple[type[models.Model], Any], Any] = {}

    def _taken(self, model: type[models.Model]) -> int:
        if not isinstance(model._meta.pk, models.IntegerField):
            return 0
        return int(model._base_manager.aggregate(last=models.Max("pk"))["last"] or 0)

    def load(self) -> int:
        for model in self.shared:
            key = _at(model, model._meta.pk.attname)
            self.named[model] = {row[key]: row for row in _lines(self.folder, model, self.manifest) if not self._mine(model, row)}  # fmt: skip
        links = [model for model in tables() if wall(model) not in (None, "pk", "id", "brand_id")]
        own = [model for model in tables() if wall(model) and model not in links]
        count = sum(_insert(model, self._rows(model), self.say) for model in own)
        return count + sum(_insert(model, self._linked(model), self.say) for model in links)

    def _mine(self, model: type[models.Model], row: list[Any]) -> bool:
        path = wall(model)
        if path is None:
            return False
        return bool(row[_at(model, model._meta.pk.attname if path == "pk" else path)] == self.brand)

    def _rows(self, model: type[models.Model]) -> Iterator[list[Any]]:
        move = self._mover(model)
        for row in _lines(self.folder, model, self.manifest):
            if self._mine(model, row):
                yield move(row)

    def _linked(self, model: type[models.Model]) -> Iterator[list[Any]]:
        """Links between two rows, of which the first is the tenant's."""
        through = next(field for field in model._meta.concrete_fields if wall(model) == f"{field.name}__brand_id")
        owner: Any = through.related_model
        mine = {row[_at(owner, "id")] for row in _lines(self.folder, owner, self.manifest) if self._mine(owner, row)}
        move, at = self._mover(model), _at(model, through.attname)
        for row in _lines(self.folder, model, self.manifest):
            if row[at] in mine:
                yield move(row)

    def _mover(self, model: type[models.Model]) -> Callable[[list[Any]], list[Any]]:
        """Gives a row its new key, and new keys to what it names."""
        moves: list[tuple[int, Callable[[Any], Any]]] = []
        base = getattr(model, "instance_type", None)  # a history row holds the key of what it is of
        for at, field in enumerate(model._meta.concrete_fields):
            if field.primary_key:
                moves.append((at, partial(_plus, self.offsets.get(model, 0))))
            elif base is not None and field.attname == base._meta.pk.attname:
                moves.append((at, partial(_plus, self.offsets.get(base, 0))))
            elif field.is_relation and field.related_model in self.shared:
                moves.append((at, partial(self._key_of, field.related_model)))
            elif field.is_relation:
                target: Any = field.related_model
                moves.append((at, partial(_plus, self.offsets.get(target, 0))))

        def move(row: list[Any]) -> list[Any]:
            for at, change in moves:
                if row[at] is not None:
                    row[at] = change(row[at])
            return row

        return move

    def _key_of(self, model: type[models.Model], old: Any) -> Any:
        """The key here of a row that may be of no brand: the tenant's own, one of the same name, or a copy."""
        if old not in self.named[model]:  # the tenant's own; or, in its history, somebody long gone
            return _plus(self.offsets[model], old) if wall(model) else None
        if (model, old) not in self.known:
            self.known[model, old] = self._found(model, old) or self._copy(model, old)
        return self.known[model, old]

    def _found(self, model: type[models.Model], old: Any) -> Any:
        row = self.named[model][old]
        fields = {field.attname for field in model._meta.concrete_fields}
        names = NAMES.get(model._meta.label) or (("uuid",) if "uuid" in fields else (model._meta.pk.attname,))
        columns: dict[str, Any] = {name: model._meta.get_field(name) for name in names}
        known = {name: column.to_python(row[_at(model, name)]) for name, column in columns.items()}
        return model._base_manager.filter(**known).values_list("pk", flat=True).first()

    def _copy(self, model: type[models.Model], old: Any) -> Any:
        row = list(self.named[model][old])
        key = _at(model, model._meta.pk.attname)
        if isinstance(model._meta.pk, models.IntegerField):
            row[key] = self._taken(model) + 1
        for field in _references(model, self.shared):
            at = _at(model, field.attname)
            row[at] = None if row[at] is None else self._key_of(field.related_model, row[at])
        if model._meta.label == "auth.User":  # comes without rights: ops staff invite whom they know
            name = row[_at(model, "username")]
            taken = model._base_manager.filter(username=name).exists()
            given = {"username": f"{name[:80]}-of-{self.slug}" if taken else name, "password": "!"}
            for column, value in {**given, "is_staff": False, "is_superuser": False, "is_active": False}.items():
                row[_at(model, column)] = value
        _insert(model, [row], lambda _: None)
        return row[key]


def _plus(offset: int, key: Any) -> Any:
    return key + offset if offset else key


def _at(model: type[models.Model], attname: str) -> int:
    return [field.attname for field in model._meta.concrete_fields].index(attname)


def _insert(model: type[models.Model], rows: Iterable[list[Any]], say: Report) -> int:
    """Write rows as they were: no default, no clock, no history of its own."""
    fields = model._meta.concrete_fields
    needed = [(at, convert) for at, field in enumerate(fields) if (convert := _converter(field)) is not None]
    # a JSON null is a value, where the column takes no other
    nulls = [at for at, field in enumerate(fields) if isinstance(field, models.JSONField) and not field.null]
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    table = connection.ops.quote_name(model._meta.db_table)
    rows, count = iter(rows), 0
    with connection.cursor() as cursor:
        while batch := list(islice(rows, AT_ONCE)):
            for row in batch:
                for at, convert in needed:
                    if row[at] is not None:
                        row[at] = convert(row[at])
                for at in nulls:
                    if row[at] is None:
                        row[at] = connection.ops.adapt_json_value(None, None)
            if connection.vendor == "postgresql":
                # COPY does not go through row-level security; a table of this session's own does, in one statement
                if not count:
                    cursor.execute(
                        f"CREATE TEMP TABLE restored ON COMMIT DROP AS SELECT {columns} FROM {table} LIMIT 0"  # noqa: S608  # our own names
                    )
                with cursor.copy(f"COPY restored ({columns}) FROM STDIN") as copy:
                    for row in batch:
                        copy.write_row(row)
                cursor.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM restored")  # noqa: S608
                cursor.execute("TRUNCATE restored")
            else:
                marks = ", ".join(["%s"] * len(fields))
                cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", batch)  # noqa: S608
            count += len(batch)
            if not count % 100_000:
                say(f"{model._meta.label}: {count:,} rows")
        if count and connection.vendor == "postgresql":
            cursor.execute("DROP TABLE restored")
    return count


def _converter(field: Any) -> Callable[[Any], Any] | None:
    """From the file's value to the database's; none where they are the same."""
    if isinstance(field, models.ForeignKey):
        return _converter(field.target_field)
    to_database = partial(field.get_db_prep_save, connection=connection)
    readers: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
        (models.JSONField, lambda value: value),
        (models.DateTimeField, datetime.fromisoformat),
        (models.DateField, date.fromisoformat),
        (models.DecimalField, Decimal),
        (models.UUIDField, UUID),
    )
    for kind, read_value in readers:
        if isinstance(field, kind):
            return partial(_both, read_value, to_database)
    if isinstance(
        field, models.CharField | models.TextField | models.IntegerField | models.BooleanField | models.FloatField
    ):
        return None
    return partial(_both, field.to_python, to_database)


def _both(first: Callable[[Any], Any], then: Callable[[Any], Any], value: Any) -> Any:
    return then(first(value))


def _reset_sequences() -> None:
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), tables()):
            cursor.execute(statement)


# -- erasing


def erase(brand: Brand, by: str, export: str = "") -> dict[str, Any]:
    """Take a tenant out: rows, files, caches, answers kept; the installation's chain keeps the proof.

    The proof names the brand by its UUID, how many rows went from each table, and the end of its audit
    chain, so that a copy kept elsewhere can be matched with it.

    Args:
        by: who asked for it.
        export: digest of the export made before, for the proof.

    Raises:
        BadInput: rows of no brand, or of another, still name rows of this one.
    """
    ends = list(AuditHead.objects.filter(brand=brand).values("sequence", "hash"))
    places = [place for _, place in _files(brand)]
    places += [
        Path(settings.VAR) / "training" / str(key)
        for key in TrainingRun.objects.filter(brand=brand).values_list("pk", flat=True)
    ]
    places += [Path(settings.MEDIA_ROOT) / "evaluations"]  # kept answers of models, made again when asked for
    digests = sorted(_own_adapters(brand))
    members = set(Membership.objects.filter(brand=brand).values_list("user_id", flat=True))
    uuid, key = str(brand.uuid), brand.pk
    gone: dict[str, int] = {}
    with connection.constraint_checks_disabled(), transaction.atomic(), append_only.opened():
        _erase_console_log(brand)
        IdempotencyKey.objects.filter(user__in=members)._raw_delete(using="default")  # type: ignore[attr-defined]
        links = [model for model in tables() if wall(model) not in (None, "pk", "id", "brand_id")]
        for model in [*links, *(model for model in tables() if wall(model) and model not in links)]:
            count = model._base_manager.filter(**{str(wall(model)): key})._raw_delete(using="default")  # type: ignore[attr-defined]
            if count:
                gone[model._meta.label] = count
        gone["auth.User"] = _erase_people(members)
        _still_sound(uuid)
        proof = audit.record(
            brand=None,
            actor=by,
            action="tenant erased",
            payload={"brand": uuid, "rows": gone, "chain_end": ends[0] if ends else {}, "adapters": digests, "export_sha256": export},
        )  # fmt: skip
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
    cache.clear()
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        with connection.cursor() as cursor:  # freed pages still hold what stood there
            cursor.execute("VACUUM")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return {"brand": uuid, "rows": gone, "adapters": digests, "proof": {"chain": "-", "sequence": proof.sequence, "hash": proof.hash}}  # fmt: skip


def _erase_console_log(brand: Brand) -> None:
    """Lines of the console's own log about rows of the brand: they quote names."""
    log = apps.get_model("admin", "LogEntry")
    for kind in log._base_manager.values_list("content_type", flat=True).distinct():
        model = apps.get_model("contenttypes", "ContentType")._base_manager.get(pk=kind).model_class()
        path = wall(model) if model is not None else None
        if model is None or path is None:
            continue
        lines = log._base_manager.filter(content_type=kind)
        keys = set(lines.values_list("object_id", flat=True))
        mine = model._base_manager.filter(pk__in=keys, **{path: brand.pk}).values_list("pk", flat=True)
        lines.filter(object_id__in=[str(one) for one in mine])._raw_delete(using="default")


def _erase_people(members: set[int]) -> int:
    """People who acted for this brand alone; whom another's row still names keeps an account without a name."""
    people = apps.get_model("auth", "User")._base_manager
    count = 0
    for person in people.filter(pk__in=members, memberships=None, is_staff=False, is_superuser=False):
        for name in ("AccessAttempt", "AccessLog", "AccessFailureLog"):
            apps.get_model("axes", name)._base_manager.filter(username=person.username).delete()
        try:
            with transaction.atomic():
                person.delete()
        except models.ProtectedError:
            people.filter(pk=person.pk).update(
                username=f"erased-{person.pk}",
                first_name="",
                last_name="",
                email="",
                password="!",  # noqa: S106  # opens nothing
                is_active=False,
            )
        count += 1
    return count


def _still_sound(uuid: str) -> None:
    if connection.vendor == "mysql":
        return
    try:
        connection.check_constraints()
    except IntegrityError as error:
        raise BadInput(f"brand {uuid}: other rows still name its rows ({str(error).splitlines()[0]}); nothing was erased") from None  # fmt: skip
