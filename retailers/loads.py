"""Harmonized frames into rows: idempotent by natural key, newest extract wins, whole file or nothing.

Two paths with one meaning. PostgreSQL takes the frames by COPY into temporary tables and compares
there; other engines go batch by batch through the ORM. A value that changes leaves its old self in
MetricRevision; an older extract never overwrites a newer one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from retailers.domain import reconcile, rmis
from retailers.domain.mapping import MappingFile
from retailers.models import Brand, FeedLoad, MetricOutcome, MetricRevision, PerformanceMetric, QuarantinedRow
from rmn.lib import masking, pii
from rmn.lib.errors import BadInput

BATCH = 2000
COPY_ROWS = 100_000
MOST_KEYS = 500_000  # of 64 characters, held at once
NUMBERS = ("impressions", "viewable_impressions", "clicks", "spend")
PLAIN = tuple(
    name
    for name in rmis.METRICS_SCHEMA
    if name not in ("row_key", "retailer", "warnings", "period_start", "period_end", "hour", "extracted_at", *NUMBERS)
)  # text columns of the table, in the frame's order
COLUMNS = (
    "row_key",
    *PLAIN,
    "period_start",
    "period_end",
    "hour",
    *NUMBERS,
    "extracted_at",
    "is_final",
    "spend_assumed",
    "report",
)
STAMPS = ("row_key", "row_hash", "extracted_at", "is_final")
OUTCOME_COLUMNS = ("row_key", "metric", "window_days", "interaction", "model", "scope", "sales_channel", "value")


def keep_file(brand: Brand, chunks: Iterable[bytes], kind: str = "feeds") -> tuple[str, str]:
    """Store a file below the files folder under its digest; returns its relative path and SHA-256.

    Raises:
        BadInput: larger than the installation takes.
    """
    folder = Path(settings.MEDIA_ROOT) / kind / str(brand.uuid)
    folder.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    part = folder / f".{hashlib.sha256(repr(id(chunks)).encode()).hexdigest()[:16]}.part"
    try:
        with part.open("wb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > settings.RMN_UPLOAD_MAX_BYTES:
                    raise BadInput(
                        f"the file has more than {settings.RMN_UPLOAD_MAX_BYTES // 2**20} MB; split it, or raise RMN_UPLOAD_MAX_MB"
                    )
                digest.update(chunk)
                file.write(chunk)
        target = folder / digest.hexdigest()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return str(target.relative_to(settings.MEDIA_ROOT)), digest.hexdigest()


def upsert(folder: Path, load: FeedLoad, mapping: MappingFile) -> dict[str, int]:
    """Bring a harmonized folder into the database, all of it or none.

    Returns:
        inserted, unchanged, restated, older (left alone since what stands is newer), removed (rows
        that an earlier mapping of the same file had made under other keys).

    Raises:
        BadInput: rows without a period cannot stand in a time series.
    """
    undated = pl.scan_parquet(folder / "metrics.parquet").select(pl.col("period_start").is_null().any())
    if undated.collect(engine="streaming").item():
        raise BadInput(f"{load.file_name}: the report carries no date; say which days it covers (--period START:END)")
    metrics = _metrics(folder, load, mapping)
    with transaction.atomic():
        counts = _copy(metrics, folder, load) if connection.vendor == "postgresql" else _batches(metrics, folder, load)
        counts["removed"] = _remove_strays(metrics, load, mapping)
        keep_refused(pl.read_parquet(folder / "quarantine.parquet"), load)
        if load.status == load.Status.RUNNING:
            # SQLite has one writer, so nobody could renew meanwhile; who waits to claim the run finds this first
            load.renew()
    return counts


REPORT = ("network", "account_id", "ad_product", "currency", "grain", "period_start", "period_end", "hourly")


def _metrics(folder: Path, load: FeedLoad, mapping: MappingFile) -> pl.LazyFrame:
    """The frame in the table's columns: text never null, young rows not final, each with its report's number."""
    young = pl.col("period_end") > (pl.col("extracted_at").dt.date() - timedelta(days=mapping.restated_days))
    final = ~young if mapping.restated_days else pl.lit(value=True)
    rows = pl.scan_parquet(folder / "metrics.parquet").select(
        "row_key",
        *[pl.col(name).cast(pl.String).fill_null("") if name != "row_number" else pl.col(name) for name in PLAIN],
        "period_start",
        "period_end",
        "hour",
        *NUMBERS,
        "extracted_at",
        final.alias("is_final"),
        pl.lit(bool(mapping.spend_assumed)).alias("spend_assumed"),
        pl.col("hour").is_not_null().alias("hourly"),
    )
    rows = _masked(rows, load)
    told = rows.select(REPORT).unique().collect(engine="streaming")
    numbers = [
        reconcile.report_number((load.retailer_id, *where, load.brand_id), grain, start, end, hourly)
        for *where, grain, start, end, hourly in told.iter_rows()
    ]
    known = told.with_columns(pl.Series("report", numbers, dtype=pl.Int64)).lazy()
    return rows.join(known, on=REPORT, how="left").drop("hourly")


TEXTS = ("campaign_name", "ad_group_name", "keyword", "search_term", "placement")
# six digits, an at, or a device's pairs: without one of these a name holds no structured personal data
MAY_HOLD = r"(?i)@|%40|[\(\[]at[\)\]]| at .* dot |\d(?:\D{0,4}\d){5}|[0-9a-f]{2}[:-][0-9a-f]{2}[:-]|[0-9a-f]{12}|(?:(?:zero|oh|one|two|three|four|five|six|seven|eight|nine)[ ,-]+){5}|[\x{ff00}-\x{ffef}]"


def _masked(rows: pl.LazyFrame, load: FeedLoad) -> pl.LazyFrame:
    """The rows with structured personal data masked in what people name and shoppers type; keys stay as they were."""
    odd = rows.select(TEXTS).filter(pl.any_horizontal(pl.col(TEXTS).str.contains(MAY_HOLD))).unique()
    found = odd.collect(engine="streaming")
    mask = masking.of(load.brand, prose=False)
    tags: Counter[str] = Counter()
    for name in TEXTS:
        other = {text: mask(text) for text in found[name].unique().to_list()}
        other = {text: new[:240] for text, new in other.items() if new != text}
        tags.update(kind for new in other.values() for kind in re.findall(pii.TAG, new))
        if other:
            rows = rows.with_columns(pl.col(name).replace(other))
    load.masked_kinds = tags
    return rows


def _outcomes(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(folder / "outcomes.parquet").select(
        "row_key",
        "metric",
        pl.col("window_days").fill_null(0),
        *[pl.col(name).fill_null("") for name in ("interaction", "model", "scope", "sales_channel")],
        "value",
    )


# -- PostgreSQL


def _copy(metrics: pl.LazyFrame, folder: Path, load: FeedLoad) -> dict[str, int]:
    table, outcome, revision = (model._meta.db_table for model in (PerformanceMetric, MetricOutcome, MetricRevision))
    mine: dict[str, Any] = {
        "brand": load.brand_id,
        "retailer": load.retailer_id,
        "load": load.pk,
        "now": timezone.now(),
    }
    names = ", ".join(COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS stage_key, stage_metric, stage_outcome, stage_hit, stage_touched")
        cursor.execute(
            f"CREATE TEMP TABLE stage_key ON COMMIT DROP AS SELECT {', '.join(STAMPS)} FROM {table} WITH NO DATA"
        )
        cursor.execute(f"CREATE TEMP TABLE stage_metric ON COMMIT DROP AS SELECT {names} FROM {table} WITH NO DATA")
        cursor.execute(
            f"CREATE TEMP TABLE stage_outcome ON COMMIT DROP AS SELECT ''::varchar(64) AS row_key, {', '.join(OUTCOME_COLUMNS[1:])} FROM {outcome} WITH NO DATA"
        )
        # what stands is compared by key and hash; only rows that are written travel whole
        if PerformanceMetric.objects.filter(brand_id=load.brand_id, retailer_id=load.retailer_id).exists():
            _copy_frame(cursor, "stage_key", metrics.select(STAMPS))
            cursor.execute("ANALYZE stage_key")
        taken = "greatest(m.extracted_at, l.confirmed_at)"  # null counts as nothing
        cursor.execute(
            "CREATE TEMP TABLE stage_hit ON COMMIT DROP AS"
            f" SELECT m.id, m.load_id, s.row_key, s.extracted_at, m.row_hash <> s.row_hash AS changed,"
            f" s.extracted_at >= {taken} AS newer, s.extracted_at > {taken} AS later, s.is_final <> m.is_final AS ripe"
            f" FROM stage_key s JOIN {table} m"
            " ON m.brand_id = %(brand)s AND m.retailer_id = %(retailer)s AND m.row_key = s.row_key"
            f" LEFT JOIN {FeedLoad._meta.db_table} l ON l.id = m.load_id",
            mine,
        )
        cursor.execute("ANALYZE stage_hit")
        cursor.execute(
            "SELECT count(*) FILTER (WHERE NOT changed), count(*) FILTER (WHERE changed AND newer),"
            " count(*) FILTER (WHERE changed AND NOT newer) FROM stage_hit"
        )
        unchanged, restated, older = cursor.fetchone()
        confirmed = _confirm(cursor, table) if unchanged else []
        written = _written(cursor, unchanged + older) if unchanged or restated or older else None
        _copy_frame(cursor, "stage_metric", _only(metrics.select(COLUMNS), written))
        cursor.execute("ANALYZE stage_metric")
        cursor.execute("CREATE TEMP TABLE stage_touched (id bigint, row_key varchar(64)) ON COMMIT DROP")
        if restated:
            _restate(cursor, table, outcome, revision, mine)
        if unchanged:
            cursor.execute(
                f"UPDATE {table} m SET extracted_at = s.extracted_at, is_final = s.is_final FROM stage_key s, stage_hit h"
                " WHERE h.id = m.id AND h.row_key = s.row_key AND NOT h.changed AND h.later"
                " AND (h.ripe OR h.load_id IS NULL OR h.load_id <> ALL(%s::uuid[]))",
                [confirmed],
            )
        fresh = (
            ""
            if not (unchanged or restated or older)
            else "WHERE NOT EXISTS (SELECT 1 FROM stage_hit h WHERE h.row_key = s.row_key)"
        )
        cursor.execute(
            f"WITH fresh AS (INSERT INTO {table} (uuid, created_at, loaded_at, brand_id, retailer_id, load_id, {names})"
            f" SELECT gen_random_uuid(), %(now)s, %(now)s, %(brand)s, %(retailer)s, %(load)s, {names} FROM stage_metric s {fresh}"
            " RETURNING id, row_key) INSERT INTO stage_touched SELECT id, row_key FROM fresh",
            mine,
        )
        inserted = cursor.rowcount
        cursor.execute("ANALYZE stage_touched")
        _copy_frame(cursor, "stage_outcome", _only(_outcomes(folder), written))
        cursor.execute("ANALYZE stage_outcome")
        cursor.execute(
            f"INSERT INTO {outcome} (brand_id, performance_id, {', '.join(OUTCOME_COLUMNS[1:])})"
            f" SELECT %(brand)s, t.id, {', '.join('o.' + name for name in OUTCOME_COLUMNS[1:])}"
            " FROM stage_outcome o JOIN stage_touched t ON t.row_key = o.row_key",
            mine,
        )
    return {"inserted": inserted, "unchanged": unchanged, "restated": restated, "older": older}


def _written(cursor: Any, left: int) -> pl.LazyFrame | None:
    """Keys of the staged rows that are new or restate what stands; None where they are too many to tell apart here."""
    cursor.execute("SELECT count(*) FROM stage_key")
    if cursor.fetchone()[0] - left > MOST_KEYS:
        return None
    cursor.execute(
        "SELECT s.row_key FROM stage_key s LEFT JOIN stage_hit h ON h.row_key = s.row_key"
        " WHERE h.row_key IS NULL OR (h.changed AND h.newer)"
    )
    return pl.LazyFrame({"row_key": [key for (key,) in cursor.fetchall()]}, schema={"row_key": pl.String})


def _only(rows: pl.LazyFrame, keys: pl.LazyFrame | None) -> pl.LazyFrame:
    return rows if keys is None else rows.join(keys, on="row_key", how="semi")


def _confirm(cursor: Any, table: str) -> list[Any]:
    """Loads of which every standing row is said again by this later extract: one stamp stands for all their rows.

    To write each row anew for its instant alone would cost as much as the first load.
    """
    cursor.execute(
        "SELECT load_id, count(*), min(extracted_at) FROM stage_hit WHERE later AND load_id IS NOT NULL"
        " GROUP BY load_id HAVING min(extracted_at) = max(extracted_at)"
    )
    confirmed = []
    for load, hits, instant in cursor.fetchall():
        cursor.execute(f"SELECT count(*) FROM {table} WHERE load_id = %s", [load])
        if cursor.fetchone()[0] == hits:
            cursor.execute(f"UPDATE {FeedLoad._meta.db_table} SET confirmed_at = %s WHERE id = %s", [instant, load])
            confirmed.append(load)
    return confirmed


def _restate(cursor: Any, table: str, outcome: str, revision: str, mine: dict[str, Any]) -> None:
    # money as text: JSON numbers are floats
    old = ", ".join(f"'{name}', m.{name}{'::text' if name == 'spend' else ''}" for name in NUMBERS)
    cursor.execute(
        f"INSERT INTO {revision} (brand_id, performance_id, replaced_by_id, row_hash, extracted_at, replaced_at, values)"
        f" SELECT m.brand_id, m.id, %(load)s, m.row_hash, m.extracted_at, %(now)s, jsonb_build_object({old},"
        " 'file_sha256', m.file_sha256, 'row_number', m.row_number, 'mapping_version', m.mapping_version,"
        " 'outcomes', (SELECT coalesce(jsonb_agg(jsonb_build_object('metric', o.metric, 'window_days', o.window_days,"
        " 'interaction', o.interaction, 'model', o.model, 'scope', o.scope, 'sales_channel', o.sales_channel,"
        f" 'value', o.value::text)), '[]'::jsonb) FROM {outcome} o WHERE o.performance_id = m.id))"
        f" FROM {table} m JOIN stage_hit h ON h.id = m.id WHERE h.changed AND h.newer",
        mine,
    )
    sets = ", ".join(f"{name} = s.{name}" for name in COLUMNS if name != "row_key")
    cursor.execute(
        f"UPDATE {table} m SET {sets}, load_id = %(load)s, loaded_at = %(now)s FROM stage_metric s, stage_hit h"
        " WHERE h.id = m.id AND h.row_key = s.row_key AND h.changed AND h.newer",
        mine,
    )
    cursor.execute("INSERT INTO stage_touched SELECT id, row_key FROM stage_hit WHERE changed AND newer")
    cursor.execute(f"DELETE FROM {outcome} o USING stage_touched t WHERE o.performance_id = t.id")


def _copy_frame(cursor: Any, table: str, frame: pl.LazyFrame) -> None:
    names = ", ".join(frame.collect_schema().names())
    with cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT csv, NULL '\\N')") as copy:
        for batch in frame.collect_batches(chunk_size=COPY_ROWS, engine="streaming"):
            copy.write(
                batch.write_csv(
                    include_header=False, null_value="\\N", datetime_format="%Y-%m-%dT%H:%M:%S%.6f%:z"
                ).encode()
            )


# -- other engines


def _batches(metrics: pl.LazyFrame, folder: Path, load: FeedLoad) -> dict[str, int]:
    counts = {"inserted": 0, "unchanged": 0, "restated": 0, "older": 0}
    table = metrics.sort("row_key").collect(engine="streaming")
    outcomes = _outcomes(folder).sort("row_key").collect(engine="streaming")
    keys = outcomes["row_key"]
    said = FeedLoad.objects.filter(brand_id=load.brand_id, retailer_id=load.retailer_id, confirmed_at__isnull=False)
    stamps = dict(said.values_list("pk", "confirmed_at"))
    for start in range(0, table.height, BATCH):
        part = table.slice(start, BATCH)
        first, last = part["row_key"][0], part["row_key"][-1]
        begin = int(keys.search_sorted(first, "left")) if len(keys) else 0
        end = int(keys.search_sorted(last, "right")) if len(keys) else 0
        _batch(part, outcomes.slice(begin, end - begin), load, counts, stamps)
    return counts


def _batch(
    part: pl.DataFrame, outcomes: pl.DataFrame, load: FeedLoad, counts: dict[str, int], stamps: dict[Any, Any]
) -> None:
    mine = PerformanceMetric.objects.filter(brand_id=load.brand_id, retailer_id=load.retailer_id)
    standing = {row.row_key: row for row in mine.filter(row_key__in=part["row_key"].to_list())}
    fresh: list[PerformanceMetric] = []
    restated: list[PerformanceMetric] = []
    confirmed: list[PerformanceMetric] = []
    before: dict[int, dict[str, Any]] = {}
    for values in part.iter_rows(named=True):
        old = standing.get(values["row_key"])
        if old is None:
            fresh.append(PerformanceMetric(brand_id=load.brand_id, retailer_id=load.retailer_id, load=load, **values))
            continue
        taken = max(old.extracted_at, stamps.get(old.load_id, old.extracted_at))
        if old.row_hash == values["row_hash"]:
            counts["unchanged"] += 1
            if values["extracted_at"] > taken:
                old.extracted_at, old.is_final = values["extracted_at"], values["is_final"]
                confirmed.append(old)
        elif values["extracted_at"] < taken:
            counts["older"] += 1
        else:
            before[old.pk] = {
                name: getattr(old, name)
                for name in ("row_hash", "extracted_at", "file_sha256", "row_number", "mapping_version", *NUMBERS)
            }
            for name, value in values.items():
                setattr(old, name, value)
            old.load, old.loaded_at = load, timezone.now()
            restated.append(old)
    counts["inserted"] += len(fresh)
    counts["restated"] += len(restated)
    PerformanceMetric.objects.bulk_create(fresh, batch_size=500)
    if confirmed:
        PerformanceMetric.objects.bulk_update(confirmed, ["extracted_at", "is_final"], batch_size=500)
    if restated:
        _keep_history(restated, before, load)
        fields = [*(name for name in COLUMNS if name != "row_key"), "load", "loaded_at"]
        PerformanceMetric.objects.bulk_update(restated, fields, batch_size=200)
        MetricOutcome.objects.filter(performance__in=restated).delete()
    changed = [row.row_key for row in (*fresh, *restated)]
    ids = dict(mine.filter(row_key__in=changed).values_list("row_key", "pk"))
    rows = [
        MetricOutcome(
            brand_id=load.brand_id,
            performance_id=ids[key],
            **dict(zip(OUTCOME_COLUMNS[1:], rest)),
        )
        for key, *rest in outcomes.iter_rows()
        if key in ids
    ]
    MetricOutcome.objects.bulk_create(rows, batch_size=2000)


def _keep_history(restated: list[PerformanceMetric], before: dict[int, dict[str, Any]], load: FeedLoad) -> None:
    outcomes: dict[int, list[dict[str, Any]]] = {}
    for row in MetricOutcome.objects.filter(performance__in=restated).values("performance_id", *OUTCOME_COLUMNS[1:]):
        key = row.pop("performance_id")
        outcomes.setdefault(key, []).append({**row, "value": str(row["value"])})
    MetricRevision.objects.bulk_create(
        [
            MetricRevision(
                brand_id=load.brand_id,
                performance_id=key,
                replaced_by=load,
                row_hash=old["row_hash"],
                extracted_at=old["extracted_at"],
                values={
                    **{
                        name: str(old[name]) if name == "spend" and old[name] is not None else old[name]
                        for name in (*NUMBERS, "file_sha256", "row_number", "mapping_version")
                    },
                    "outcomes": outcomes.get(key, []),
                },
            )
            for key, old in before.items()
        ],
        batch_size=500,
    )


# -- what both share


def _remove_strays(metrics: pl.LazyFrame, load: FeedLoad, mapping: MappingFile) -> int:
    """Rows that an earlier version of this mapping made of the same file under keys it no longer has."""
    earlier = PerformanceMetric.objects.filter(
        brand_id=load.brand_id,
        retailer_id=load.retailer_id,
        file_sha256=load.file_sha256,
        mapping_version__startswith=f"{mapping.mapping}@",
    ).exclude(mapping_version=mapping.version_text)
    if not earlier.exists():
        return 0
    keys = metrics.select("row_key").collect(engine="streaming")
    standing = pl.DataFrame(
        list(earlier.values_list("pk", "row_key")), schema={"pk": pl.Int64, "row_key": pl.String}, orient="row"
    )
    strays = standing.join(keys, on="row_key", how="anti")["pk"].to_list()
    for start in range(0, len(strays), BATCH):
        PerformanceMetric.objects.filter(pk__in=strays[start : start + BATCH]).delete()
    return len(strays)


def keep_refused(refused: pl.DataFrame, load: FeedLoad) -> None:
    """Keep what was refused; what an earlier mapping refused of this file and this one took is answered.

    Args:
        refused: row_number, column, rule, message, raw.
    """
    open_rows = QuarantinedRow.objects.open().filter(
        brand_id=load.brand_id, retailer_id=load.retailer_id, file_sha256=load.file_sha256
    )
    still = set(refused["row_number"].to_list())
    answered = [pk for pk, number in open_rows.values_list("pk", "row_number") if number not in still]
    for start in range(0, len(answered), BATCH):
        QuarantinedRow.objects.filter(pk__in=answered[start : start + BATCH]).update(
            status=QuarantinedRow.Status.REPLAYED, replayed_by=load
        )
    for part in _slices(refused):
        QuarantinedRow.objects.bulk_create(
            [
                QuarantinedRow(
                    brand_id=load.brand_id,
                    retailer_id=load.retailer_id,
                    load=load,
                    file_sha256=load.file_sha256,
                    row_number=row["row_number"],
                    column=(row["column"] or "")[:120],
                    rule=row["rule"][:60],
                    message=row["message"] or "",
                    raw=row["raw"] or "",
                )
                for row in part.iter_rows(named=True)
            ],
            ignore_conflicts=True,
            batch_size=1000,
        )


def _slices(table: pl.DataFrame) -> Iterator[pl.DataFrame]:
    for start in range(0, table.height, 10_000):
        yield table.slice(start, 10_000)


def record(load: FeedLoad, report: dict[str, Any]) -> None:
    """The load's own row says what came in and out."""
    start, end = report["period"]
    masked = {"masked": dict(load.masked_kinds)} if load.masked_kinds else {}
    load.result = json.loads(json.dumps({**report, **masked}, default=str))
    load.mapping_version = report["mapping_version"]
    load.grain = report["grain"]
    load.extracted_at = report["extracted_at"]
    load.period_start, load.period_end = start, end
    for name in ("rows_read", "rows_accepted", "rows_quarantined", "rows_warned"):
        setattr(load, name, report[name])
    load.save(
        update_fields=[
            "result",
            "mapping_version",
            "grain",
            "extracted_at",
            "period_start",
            "period_end",
            "rows_read",
            "rows_accepted",
            "rows_quarantined",
            "rows_warned",
        ]
    )
