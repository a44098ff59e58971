"""Two hundred texts that would run in a reader's browser if a page let them, and rows of every model that hold them.

Each text calls ``xss`` (or a dialog) with a number of its own, so that a page tells which were drawn and which was run.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import count
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection, models
from django.utils import timezone

from campaigns.copy import fingerprint
from campaigns.models import Recommendation
from rmn.lib.runs import Run
from tests import factories
from tests.conftest import People

FIRST, COUNT = 990_001, 200
CALLS = ["xss(N)", "xss`N`", "self.xss(N)", "alert(N)", "(0,xss)(N)", "[N].map(xss)", "top[/xss/.source](N)", "setTimeout(xss,0,N)"]  # fmt: skip
WAYS = [
    # markup
    "<script>CALL</script>", "</script><script>CALL</script>", "</title><script>CALL</script>", "</textarea><script>CALL</script>", "</style><script>CALL</script>",
    "</noscript><script>CALL</script>", "--><script>CALL</script>", "]]><script>CALL</script>", "<sCrIpT/x>CALL</ScRiPt>", "<svg><script>CALL</script></svg>",
    "</select></option><script>CALL</script>", "<math><mtext><script>CALL</script>", "<iframe srcdoc='<script>CALL</script>'>", "<template><script>CALL</script></template>",
    # event handlers
    "<img src=x onerror=CALL>", "<svg onload=CALL>", "<body onload=CALL>", "<details open ontoggle=CALL>", "<input autofocus onfocus=CALL>", "<video><source onerror=CALL></video>",
    "<style onload=CALL></style>", "<marquee onstart=CALL>", "<svg><animate onbegin=CALL attributeName=x>", "<link rel=stylesheet href=data:, onload=CALL>",
    # out of an attribute
    "\"><img src=x onerror=CALL>", "'><svg/onload=CALL>", "\" autofocus onfocus=CALL x=\"", "' autofocus onfocus=CALL x='", "x onfocus=CALL autofocus tabindex=1", "` onerror=CALL x=`", "\"onmouseover=\"CALL",
    # addresses
    "javascript:CALL", "JaVaScRiPt:CALL", " java\tscript:CALL", "<a href=javascript:CALL>x</a>", "data:text/html,<script>CALL</script>", "<object data=javascript:CALL>", "<form action=javascript:CALL><button autofocus>",
    "<meta http-equiv=refresh content='0;url=javascript:CALL'>", "<base href=javascript:CALL//>", "<svg><a xlink:href=javascript:CALL>",
    # templates, Alpine, HTMX
    "{{constructor.constructor('CALL')()}}", "${CALL}", "{% CALL %}", "<b x-data x-init=\"CALL\">", "<b x-data=\"CALL\">", "<b x-data x-text=\"CALL\">", "<img src=x:x x-data @error=\"CALL\">", "\" x-data x-init=\"CALL",
    "<b hx-on::load=\"CALL\" hx-get=/ hx-trigger=load>", "<b hx-get=/ hx-trigger=\"load[CALL]\">", "<b hx-get=/ hx-trigger=load hx-vals=\"js:{x:CALL}\">",
    # out of a script's string, or of JSON in a script
    "';CALL//", "\";CALL//", "\\';CALL//", "'-CALL-'", "\"-CALL-\"", "');CALL;('", "\u2028CALL//", "{\"x\":\"</script><script>CALL</script>\"}", "<!--<script>CALL//-->",
    "\\u003cscript\\u003eCALL\\u003c/script\\u003e", "\\x3cimg src=x onerror=CALL\\x3e",
    # written as entities or as an address
    "&lt;script&gt;CALL&lt;/script&gt;", "&#60;img src=x onerror=CALL&#62;", "&quot;&gt;&lt;svg onload=CALL&gt;", "%3Cscript%3ECALL%3C/script%3E", "&#x6a;avascript:CALL",
    # tables, Markdown, CSS
    "=HYPERLINK(\"javascript:CALL\",\"x\")", "[x](javascript:CALL)", "![x](x\"onerror=\"CALL)", "<javascript:CALL>", "<style>@import'javascript:CALL';</style>", "<b style=\"background:url(javascript:CALL)\">",
    # several at once
    "javascript:/*--></title></style></textarea></script><svg/onload='+/\"/+/onmouseover=1/+/[*/[]/+CALL//'>", "'\"><svg/onload=CALL>{{CALL}}",
]  # fmt: skip


def _text(place: int) -> str:
    call = CALLS[(place + place // len(WAYS)) % len(CALLS)].replace("N", str(FIRST + place))
    return WAYS[place % len(WAYS)].replace("CALL", call)


TEXTS = [_text(place) for place in range(COUNT)]
NUMBER = re.compile(r"990\d{3}")


def numbers(page: str) -> set[int]:
    """Which of the texts stand in a page, by their numbers."""
    return {number for found in NUMBER.findall(page) if 0 <= (number := int(found) - FIRST) < COUNT}


def as_many(room: int, start: int) -> str:
    """As many whole texts as fit, from number ``start`` on; nothing where not even a short one does."""
    kept: list[str] = []
    for place in range(start, start + COUNT):
        text = TEXTS[place % COUNT]
        if len(text) + (1 if kept else 0) <= room:
            kept.append(text)
            room -= len(text) + (1 if len(kept) > 1 else 0)
        if room < 24 or (not kept and place > start + 60):
            break
    return "\n".join(kept)


def everything(start: int) -> str:
    return "\n".join(TEXTS[(start + place) % COUNT] for place in range(COUNT))


# -- what stands where

# Columns that are keys, digests, codes or our own addresses: rows are found by them, or files opened.
PLAIN = {
    "slug", "digest", "sha256", "hash", "previous_hash", "row_key", "row_hash", "file_sha256", "body_sha256", "result_digest", "prompt_digest", "adapter_digest", "other_adapter_digest", "registered_hash", "text_sha256",
    "chain", "scope", "currency", "base", "quote", "time_zone", "file_path", "path", "idempotency_key", "password", "sealed_secret", "sealed_key", "key", "codename", "parents", "embedding", "network", "grain", "comparison", "format", "stop", "crontab",
}  # fmt: skip
PLAIN_OF = {
    "agents.CleanRoomConnection": {"kind"}, "campaigns.ResponseCurve": {"kind", "points", "std", "draws"}, "campaigns.Experiment": {"kind"}, "retailers.PolicyRule": {"kind", "code"},
    "training.Dataset": {"kind"}, "training.TrainingRun": {"method"}, "retailers.Retailer": {"policies"}, "feedback.ReviewTask": {"expected"}, "retailers.FeedMapping": {"yaml"}, "rmn.BrandFigures": {"weeks"},
    "django_celery_beat.CrontabSchedule": {"minute", "hour", "day_of_week", "day_of_month", "month_of_year"}, "django_celery_beat.PeriodicTask": {"args", "kwargs", "headers"}, "campaigns.Campaign": {"constraints"},
    "otp_totp.TOTPDevice": {"key"}, "auth.User": {"email"},
}  # fmt: skip
# JSON as its pages read it: "*" is the next text, "**" all of them, "*1" the same wherever it stands in the row.
ARMS = [{"id": f"*{n}", "spend": 100.0 * n, "expected_sales": 520.0 * n, "interval": [400.0 * n, 640.0 * n], "roas": 5.2, "marginal_roas": 1.4, "binding": "*", "readiness": {"share": n / 4, "why": "*", "read": "2026-01-01"}} for n in range(1, 5)]  # fmt: skip
SERIES = [{"time": f"2026-01-{day:02}", "observed": 10.0 + day, "expected": 9.0 + day, "low": 8.0, "high": 40.0, "effect": 1.0, "cumulative": float(day), "cumulative_low": 0.0, "cumulative_high": 30.0, "test": day > 10} for day in range(1, 20)]  # fmt: skip
GUARD = {"estimate": 0.3, "interval": [0.1, 0.5], "p_value": 0.004, "p_worse": 0.99, "p_worse_holm": 1.0, "candidate": 0.9, "champion": 0.6}  # fmt: skip
DESIGN = {"units": ["*", "**"], "mde": 0.05, "power": 0.8, "power_at": {"0.02": 0.3, "0.05": 0.8}, "false_positive_rate": 0.1, "windows": 20, "explanation": "**"}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "campaigns.CurveFit": {"result": {"names": {"*1": "*", "*2": "*"}, "warnings": ["*", "**"]}},
    "campaigns.BudgetPlan": {
        "problem": {"arms": [{"id": f"*{n}", "last": 90.0, "retailer": "*", "campaign": "*", "tactic": "*", "evidence": "experiment"} for n in range(1, 5)]},
        "plan": {
            "status": "optimal", "objective": 5200.0, "upper_bound": 5200.0, "total_spend": 1000.0, "gap": 0.0, "explanation": "**", "method": "*", "interval": [4100.0, 6100.0], "even_split": {"objective": 4000.0, "gain_percent": 30.0},
            "frontier": [{"budget": 500.0 * n, "objective": 3000.0 * n, "upper_bound": 3000.0 * n, "price": 1.4} for n in (1, 2)], "allocations": ARMS, "warnings": ["*", "**"],
            "evidence": [{"evidence": "*", "spend": 1.0, "share": 1.0}], "next_tests": [{"arm": "*1", "worth": 5.0, "cost": 1.0, "worth_per_cost": 5.0, "uncertainty": 0.2}], "prices": {"budget": 1.4},
        },
    },
    "campaigns.Experiment": {
        "spec": {"outcome": "*1", "treatment": "*"}, "analysis_spec": {"outcome": "*1", "method": "*"}, "panel": {"*": "*"},
        "design": {"alpha": 0.1, "method": "*", "best": DESIGN, "candidates": [DESIGN], "warnings": ["*", "**"], "n_control": 100, "n_treatment": 100},
        "result": {
            "verdict": "effect", "method": "*", "estimate": {"att": 1.2, "lift_percent": 3.0, "cumulative": 40.0}, "interval": [0.5, 2.0], "p_value": 0.02, "summary": ["*", "**"], "warnings": ["*", "**"], "series": SERIES,
            "diagnostics": {"placebo_effects": [0.1, -0.2, 0.3], "monitoring": {"decision": "**", "of": 3, "looks": [{"look": 1, "time": "*", "p_value": 0.1, "level": 0.01}]}}, "calibration": {"reason": "**"}, "iroas": {"estimate": 1.4, "interval": [1.0, 2.0]},
        },
    },
    "campaigns.Recommendation": {"content": {"copy": {"field": "*", "product": "*"}, "network_answers": [{"outcome": "*", "note": "**"}]}},
    "agents.AgentRun": {"pending": {"question": "**", "choices": ["*", "*"]}, "trace": {"model_id": "*", "model": "**", "seconds": 3.0, "tokens": 50}},
    "agents.AgentStep": {"errors": [{"path": "*", "message": "**"}], "changes": [{"path": "*", "old": 1.0, "new": 2.0}], "result": {"explanation": "**"}},
    "agents.ReflectionLog": {
        "memory_reference": [{"what": "*", "on": "*", "decided": "*", "came": "*"}], "alternate_frames": ["*", "**"], "risk_assessment": {"high_risk_factors": [{"factor": "**", "impact": "*", "severity": "high", "probability": 0.3, "mitigation": "*"}], "mitigation": ["*"]},
        "confidence": {"value": 0.7, "rationale": "*", "supporting": ["*"], "contradicting": ["**"]}, "biases": [{"type": "anchoring", "note": "**"}], "validations": ["*", "*"], "verdict": {"reasons": ["*", "**"], "n": 0}, "monitors": [{"early_sign": "**", "below": None, "metric": "*"}],
    },
    "agents.Forecast": {"subject": {}, "resolution": {"note": "**", "by": "*"}},
    "agents.Adapter": {
        "manifest": {"data": {"sources": {"*": 3, "**": 4}, "digest": "*", "rows": 40}, "method": "*", "steps": 14, "base_model": "*", "rendered": ["**"], "config": {"rank": 8, "seed": "*"}}, "gate": {"verdict": "*", "reasons": ["*", "**"]},
        "proof": {"passed": True, "acts": 0.1, "differs": 0.0, "compared": 8, "ceiling": 0.01, "reasons": ["*", "**"]},
    },
    "agents.CleanRoomConnection": {"templates": [{"name": "reach", "sql": "SELECT segment, COUNT(DISTINCT person) AS users FROM seen WHERE day = :start GROUP BY segment", "parameters": {"start": ["*", "**"]}, "cost": 1.0}, {"name": "**", "sql": "*", "parameters": {}, "cost": 1.0}]},
    "agents.CleanRoomQuery": {"parameters": {"*": "*", "**": "**"}, "result": {"rows": [{"*1": "*", "users": 400}, {"*1": "**", "users": 500}], "total": "*"}},
    "training.Dataset": {
        "manifest": {
            "rows": {"train": 40, "eval": 9, "people": 4}, "people": 6, "redactions": 3, "read": 80, "sources": {"*": 30, "**": 23}, "dropped": {"*": 4, "**": 11}, "brands": ["*", "*"], "leak_check": {"shared_prompts": 0}, "warnings": ["*", "**"], "mean_agreement": 0.8,
            "length": {"*": {"mean": 34.1, "median": 33.0, "max": 48}, "chosen_is_longer": 0.2},
        },
    },
    "training.TrainingRun": {"config": {"compose": "*", "parts": [{"adapter": "*", "weight": 0.5}], "*": "**"}, "metrics": [{"step": n, "loss": 0.69 - 0.02 * n, "margin": 0.05 * n} for n in range(1, 15)], "estimate": {"steps": 14, "tokens": 28_000, "minutes": 4.2, "at_most": 6.3, "cost": 0.14, "currency": "USD"}},
    "training.Evaluation": {
        "result": {
            "verdict": "better", "reasons": ["*", "**"], "needed_cases": None, "metrics": {"cases": 60, "clusters": 20}, "tests": [{"name": "*", **GUARD}, {"name": "**", **GUARD}, {"name": "blind votes", **GUARD, "votes": 60}],
            "pass_rate": {side: {"estimate": rate, "interval": [rate - 0.1, rate + 0.1]} for side, rate in (("candidate", 0.8), ("champion", 0.5), ("prompt_alone", 0.4))},
            "length": {"candidate": 33.2, "champion": 51.7}, "failing": {"candidate": 4, "champion": 11}, "flipped": [{"product": "*", "candidate": "**", "champion": "*", "passed": n == 0, "why": ["*", "*"]} for n in range(2)],
        },
    },
    "training.Withdrawal": {"result": {"answers": 3}},
    "training.Lesson": {"found": ["*", "**"]},
    "retailers.MetricRevision": {"values": {"spend": "*", "clicks": "*", "row_number": "*", "mapping_version": "**"}},
    "retailers.PolicyRule": {"spec": {"words": ["*", "*"]}},
    "retailers.FeedLoad": {"result": {"warnings": {"*": 3}, "totals_by_currency": {}, "note": "**"}},
}  # fmt: skip


def _shaped(value: Any, start: int, loud: bool, turn: Iterator[int]) -> Any:
    if isinstance(value, dict):
        return {_shaped(k, start, loud, turn): _shaped(v, start, loud, turn) for k, v in value.items()}
    if isinstance(value, list):
        return [_shaped(one, start, loud, turn) for one in value]
    if value == "**":
        return everything(start + next(turn)) if loud else as_many(300, start + next(turn))
    if value == "*":
        return TEXTS[(start + next(turn)) % COUNT]
    if isinstance(value, str) and re.fullmatch(r"\*\d", value):
        return TEXTS[(start + int(value[1]) * 7) % COUNT]
    return value


# -- rows

ROWS = 8
LEAST = 24  # columns that are shorter hold codes
BESIDES = ["agents.AgentStep", "retailers.MetricOutcome", "retailers.MetricRevision", "agents.CleanRoomLedger", "rmn.SavedView", "rmn.BrandFigures", "admin.LogEntry"]  # fmt: skip
MADE: dict[Any, Any] = {
    made._meta.model: made
    for made in vars(factories).values()
    if isinstance(made, type) and getattr(getattr(made, "_meta", None), "model", None) is not None
}


def fill(people: People) -> dict[Any, list[Any]]:
    """Rows of every model that the console or a screen shows; the first of each holds all texts in every column.

    Columns of the others hold as many as they take, and take turns. They are written past every door; SQLite keeps
    texts of any length, elsewhere the first row's short columns are cut to what fits.
    """
    known: dict[Any, list[Any]] = {
        type(people.brand): [people.brand, people.other],
        type(people.retailer): [people.retailer],
        User: [people.owner],
    }
    for model in _ordered():
        rows = known.get(model, [])
        many = 2 if model is User else 1 if model._meta.label in ("retailers.Brand", "retailers.Retailer", "rmn.BrandFigures") else ROWS  # fmt: skip
        for number in range(many):
            row = _row(model, people, known, number)
            if row is not None:
                rows.append(row)
        known[model] = rows
    start = count(0, 37)
    for model, rows in known.items():
        for number, row in enumerate(rows):
            values = _values(
                model,
                next(start),
                loud=number == 0 and row not in (people.owner, people.ops) and model._meta.label != "rmn.SavedView",
            )
            if values:
                model._base_manager.filter(pk=row.pk).update(**values)
            row.refresh_from_db()
    known[User].append(people.ops)
    _after(known, people)
    return known


def _ordered() -> list[Any]:
    """The models, each after those that its rows name."""
    left = [*admin.site._registry, *(apps.get_model(label) for label in BESIDES)]
    done: list[Any] = []
    while left:
        free = [model for model in left if not _named(model) & set(left) - {model}] or left[:1]
        done += free
        left = [model for model in left if model not in free]
    return list(dict.fromkeys(done))


def _named(model: Any) -> set[Any]:
    return {
        field.related_model
        for field in model._meta.concrete_fields
        if field.is_relation and not (model in MADE and field.null)
    }


def _row(model: Any, people: People, known: dict[Any, list[Any]], number: int) -> Any:
    """A row by its factory where there is one, else with the least that its columns ask for."""
    fields = {field.name: field for field in model._meta.concrete_fields}
    brands = {"brand": people.brand} if "brand" in fields else {}
    chosen: dict[str, Any] = {}
    if issubclass(model, Run):
        ends = ("failed", "succeeded", "running", "cancelled", "queued")
        chosen = {"status": ends[number % 5], "progress": 0.4, "started_at": timezone.now(), "requested_by": known[User][-1]}  # fmt: skip
    for name, field in fields.items():
        if field.is_relation and name not in ("brand", "requested_by", "reserved_by", "repeats", "replayed_by"):
            rows = known.get(field.related_model)
            if rows:
                chosen[name] = rows[number % len(rows)]
    if model in MADE:
        if model.__name__ in ("Brand", "Retailer", "User"):
            return MADE[model]()
        if model.__name__ == "Membership":
            return None
        if model.__name__ == "SavedView":
            return MADE[model](user=people.ops, name=f"view {number}")
        return MADE[model](**brands, **chosen)
    row = model(**brands, **chosen)
    for field in fields.values():
        numbered = field.primary_key and not isinstance(field, models.UUIDField)
        optional = field.null and not isinstance(field, models.DateTimeField)
        if field.is_relation or numbered or optional or field.has_default():
            continue
        if getattr(row, field.attname) in (None, ""):
            setattr(row, field.attname, _least(field, number))
    for name, value in _values(model, 53 * number, loud=False).items():  # what must be unique is, from the start
        setattr(row, name, value)
    return model._base_manager.bulk_create([row])[0]


def _least(field: Any, number: int) -> Any:
    if field.choices:
        return next(iter(dict(field.flatchoices)))
    for kind, value in (
        (models.DateTimeField, timezone.now()), (models.DateField, date(2026, 1, 1) + timedelta(days=number)), (models.UUIDField, uuid.uuid4()), (models.BooleanField, False),
        (models.IntegerField, number + 1), (models.FloatField, 1.0), (models.DecimalField, number + 1), (models.DurationField, timedelta(hours=1)), (models.JSONField, {}), (models.GenericIPAddressField, "127.0.0.1"),
    ):  # fmt: skip
        if isinstance(field, kind):
            return value
    return f"{number:x}".rjust(3, "x")[: field.max_length or 3]


def _values(model: Any, start: int, *, loud: bool) -> dict[str, Any]:
    """Hostile values for every column of a row that holds words."""
    label = model._meta.label
    plain, shapes = PLAIN | PLAIN_OF.get(label, set()), SHAPES.get(label, {})
    turn = count(0, 11)
    values: dict[str, Any] = {}
    for field in model._meta.concrete_fields:
        if field.name in plain or field.choices or field.is_relation or field.primary_key or isinstance(field, models.UUIDField):  # fmt: skip
            continue
        if isinstance(field, models.JSONField):
            empty = {"*": "*", "all": "**"} if not callable(field.default) or field.default() == {} else ["*", "**"]
            shape = shapes.get(field.name, empty)
            values[field.attname] = _shaped(shape, start, loud, turn)
        elif isinstance(field, models.TextField):
            values[field.attname] = everything(start + next(turn)) if loud else as_many(600, start + next(turn))
        elif isinstance(field, models.CharField) and (field.max_length or 0) >= LEAST:
            first = start + next(turn)
            values[field.attname] = everything(first) if loud and connection.vendor == "sqlite" else as_many(field.max_length or 0, first)  # fmt: skip
    return values


def _after(known: dict[Any, list[Any]], people: People) -> None:
    """What pages look for in single rows, and a history of those that keep one."""
    for number, row in enumerate(known[Recommendation]):
        finding = {"rule": TEXTS[number], "severity": "block", "message": everything(number), "fix": TEXTS[number + 1], "start": 0, "end": 12}  # fmt: skip
        verdict = {"verdict": ("needs_proof", "block", "pass")[number % 3], "text_sha256": fingerprint(row.text), "findings": [finding], "by": TEXTS[number + 2], "at": "2026-01-01", "rule_set_version": TEXTS[number + 3]}  # fmt: skip
        if number % 3 == 2:
            verdict["override"] = {"by": TEXTS[number + 4], "reason": everything(number + 5)}
        Recommendation.objects.filter(pk=row.pk).update(verdict=verdict)
    LogEntry.objects.update(user=people.ops)
    by_label = {model._meta.label: model for model in known}
    by_label["feedback.Feedback"].objects.update(by=people.owner)
    by_label["campaigns.BudgetPlan"].objects.update(state="proposed", spend_assumed=True)
    by_label["campaigns.Experiment"].objects.update(state="designed", kind="geo")
    by_label["agents.AgentRun"].objects.update(stop="needs_input")
    by_label["agents.ReflectionLog"].objects.filter(pk=known[by_label["agents.ReflectionLog"]][1].pk).update(reopened_at=timezone.now())  # fmt: skip
    for model, rows in known.items():
        if hasattr(model, "history"):
            for row in rows[:2]:
                row.refresh_from_db()
                row.save()
