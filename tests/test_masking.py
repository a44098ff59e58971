"""Personal data at twelve doors: what is planted is readable nowhere but in quarantine."""

from __future__ import annotations

import io
import json
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from celery import current_app
from django.apps import apps
from django.core import serializers
from django.db import models
from django.test import Client
from stdnum import iban, luhn

from agents import serving, tasks
from agents.inference.types import Question, Reply
from agents.models import AgentRun, CleanRoomQuery
from campaigns.models import Recommendation
from feedback.models import Export, Feedback
from feedback.tasks import export
from retailers import audit
from retailers.models import FeedLoad, QuarantinedRow, SKUCatalog
from rmn.lib import masking
from rmn.lib.errors import BadInput
from rmn.logging import configure
from tests.agents import test_rooms
from tests.agents.test_rooms import ask
from tests.conftest import People
from tests.factories import RecommendationFactory
from tests.retailers.test_harmonizer import MAPPING
from tests.retailers.test_loads import load

pytestmark = pytest.mark.django_db
DOORS = ("feed", "feedback", "csv", "api", "file name", "clean room", "prompt", "log", "audit", "task arguments", "export", "error page")  # fmt: skip
EACH = 42  # 504 in all
place, room = test_rooms.place, test_rooms.room


def strings(door: str) -> list[tuple[str, str]]:
    """Sentences with somebody's data in them, and what of each may be read nowhere; the same at every run."""
    rng = random.Random(door)

    def digits(count: int) -> str:
        return "".join(rng.choice("0123456789") for _ in range(count))

    def one(n: int) -> tuple[str, str]:
        area, rest = rng.randint(201, 989), digits(4)
        card = "4" + digits(14)
        account = "DE" + "00" + digits(18)
        account = account[:2] + iban.calc_check_digits(account) + account[4:]
        return [
            lambda: ("write to {}", f"shopper{digits(6)}@mail{n}.example"),
            lambda: ("call {}", f"{area}-555-{rest}"),
            lambda: ("call {}", f"+44 20 7946 {rest}"),
            lambda: ("card {}", card + luhn.calc_check_digit(card)),
            lambda: ("pay to {}", account),
            lambda: ("ssn {}", f"{rng.randint(100, 600)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}"),
            lambda: ("idfa {}", f"{digits(8)}-{digits(4)}-4{digits(3)}-8{digits(3)}-{digits(12)}"),
        ][n % 7]()  # fmt: skip

    made = [one(n) for n in range(EACH)]
    return [(words.format(said), said) for words, said in made]


@pytest.fixture(autouse=True)
def files(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the product's own logging writes."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    configure({"json": True, "level": "INFO"})
    (handler,) = root.handlers
    written = io.StringIO()
    handler.setStream(written)  # type: ignore[attr-defined]
    yield written
    root.handlers[:] = before
    root.setLevel(level)


class Listening:
    """A model that keeps what it hears."""

    heard: list[str]

    def __init__(self) -> None:
        self.heard = []

    def info(self) -> dict[str, Any]:
        return {"model_id": "listening"}

    def generate(self, question: Question) -> Reply:
        self.heard.append(json.dumps(list(question.messages), ensure_ascii=False))
        return Reply(json.dumps({"name": "done", "arguments": {}}), "stop", "listening", "", 1, 1, 0.0, None)


def stored() -> str:
    """Every row of every table but the quarantine, history and all."""
    models_ = [one for one in apps.get_models(include_auto_created=True) if one is not QuarantinedRow and one._meta.managed]  # fmt: skip
    return "\n".join(serializers.serialize("json", one._base_manager.all(), ensure_ascii=False) for one in models_)


def readable(planted: list[tuple[str, str]], *places: str) -> list[str]:
    text = "\n".join(places)
    return [said for _, said in planted if said in text or said.replace("-", "").replace(" ", "") in text]


def test_what_is_planted_at_twelve_doors_is_readable_nowhere_but_in_quarantine(
    people: People,
    place: Any,
    room: Any,
    lines: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
) -> None:
    planted = {door: strings(door) for door in DOORS}
    api, web = people.api(people.owner), people.web(people.owner)
    answers: list[str] = []

    def tell(answer: Any) -> Any:
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
        answers.append(content.decode())
        return answer

    # feed: shoppers type what they search for, and planners name campaigns
    mapping = MAPPING.replace(
        "fields:\n", "fields:\n  campaign_name: {from: Campaign}\n  search_term: {from: Term}\n", 1
    )
    rows = "".join(
        f'2026-01-{1 + n % 28:02},c{n},"{text}","{text}",10,1,1.10,5\n' for n, (text, _) in enumerate(planted["feed"])
    )
    run = load(
        people.brand,
        people.retailer,
        "Date,Campaign ID,Campaign,Term,Impressions,Clicks,Spend,Sales\n" + rows,
        mapping=mapping,
    )
    assert (run.status, run.rows_accepted) == ("succeeded", EACH), run.error

    # feedback
    draft = RecommendationFactory(brand=people.brand, retailer=people.retailer)
    for n, (text, _) in enumerate(planted["feedback"]):
        kind = {"kind": "correction", "text": f"Better: {text}"} if n % 2 else {"kind": "thumb", "value": 1}
        said = {"recommendation": str(draft.uuid), "note": text, **kind}
        assert tell(api.post("/api/v1/feedback/", said, format="json")).status_code == 201

    # CSV: a catalogue, its bad rows in quarantine
    rows = "".join(f'w{n},"Tea, {text}",{"" if n % 2 else "12345"}\n' for n, (text, _) in enumerate(planted["csv"]))
    run = load(people.brand, people.retailer, "SKU,Product Name,UPC\n" + rows, mapping="catalogue")
    assert SKUCatalog.objects.count() == EACH // 2, run.error
    assert planted["csv"][0][1] in "".join(QuarantinedRow.objects.values_list("raw", flat=True))

    # API
    for n, (text, _) in enumerate(planted["api"]):
        key = {"HTTP_IDEMPOTENCY_KEY": f"api-{n}"}
        asked: tuple[str, dict[str, Any]] = [
            ("recommendations", {"retailer": people.retailer.slug, "brand": people.brand.slug, "task": "creative", "title": text, "text": f"Fresh tea, {text}"}),
            ("texts/redact", {"brand": people.brand.slug, "text": text}),
            ("audiences", {"brand": people.brand.slug, "retailer": people.retailer.slug, "name": text, "definition": {"rule": text}}),
        ][n % 3]  # fmt: skip
        assert tell(api.post(f"/api/v1/{asked[0]}{'' if 'texts' in asked[0] else '/'}", asked[1], format="json", **key)).status_code in (200, 201), answers[-1]  # fmt: skip

    # file name
    for n, (text, _) in enumerate(planted["file name"]):
        name = f"{text.replace(' ', '_') if n % 2 else text}.csv"
        load(people.brand, people.retailer, "Date\n", name=name)

    # clean-room result
    room.rows = [{"segment": text, "users": 900 + n} for n, (text, _) in enumerate(planted["clean room"])]
    assert ask(place).state == "released"

    # prompt
    settings.RMN_INFERENCE_URL, settings.RMN_PLANNER = "http://127.0.0.1:1", "model"
    model = Listening()

    @contextmanager
    def listening(*_: Any, **__: Any) -> Iterator[Listening]:
        yield model

    monkeypatch.setattr(serving, "inference", listening)
    for text, _ in planted["prompt"]:
        plan = AgentRun.objects.create(brand=people.brand, retailer=people.retailer, goal=f"Look at sales, then {text}", requested_by=people.owner)  # fmt: skip
        tasks.plan(str(plan.pk), tenant=plan.tenant)
    assert len(model.heard) >= EACH

    # logs: ours, others', and what an exception says
    log, theirs = structlog.get_logger("rmn.test"), logging.getLogger("somebody.else")
    for n, (text, _) in enumerate(planted["log"]):
        if n % 3 == 0:
            log.info("row_refused", row=n, said=text, more={"cells": [text, n]})
        elif n % 3 == 1:
            theirs.warning("cannot read %r of %s", text, {"cell": text})
        else:
            try:
                raise ValueError(f"no such thing: {text}")
            except ValueError:
                theirs.exception("it broke at %s", text)

    # audit
    for text, _ in planted["audit"]:
        audit.record(brand=people.brand, actor="owner", action="note added", payload={"note": text, "cells": [{"said": text}]})  # fmt: skip
    assert audit.verify(people.brand.slug)["broken"] is None

    # task arguments
    for text, said in planted["task arguments"]:
        for given in ({"args": [text]}, {"kwargs": {"who": text}}, {"args": [{"cells": [said]}]}):
            with pytest.raises(BadInput) as refused:
                current_app.send_task("feedback.tasks.export", **given)
            answers.append(str(refused.value))

    # export: what came in before anything was masked
    for text, _ in planted["export"]:
        row = RecommendationFactory(brand=people.brand, retailer=people.retailer)
        Recommendation.objects.filter(pk=row.pk).update(text=text, prompt=f"Say it with {text}")
        api.post("/api/v1/feedback/", {"recommendation": str(row.uuid), "kind": "thumb", "value": 1}, format="json")
    wished = Export.objects.create(brand=people.brand, format="csv", requested_by=people.owner)
    export(str(wished.pk), tenant=wished.tenant)
    wished.refresh_from_db()
    assert wished.rows >= EACH, wished.error
    exported = (Path(settings.MEDIA_ROOT) / wished.file_path).read_text()
    tell(api.get("/api/v1/feedback/export-dpo/"))
    Recommendation.objects.filter(prompt__startswith="Say it with").update(text="", prompt="")
    Feedback.objects.filter(prompt__startswith="Say it with").update(prompt="")

    # error pages: a run that broke, an answer that says what was wrong, an address with a question
    for n, (text, _) in enumerate(planted["error page"]):
        if n % 3 == 0:
            broken = CleanRoomQuery.objects.create(brand=people.brand, connection=place, template="reach")
            with broken.tracked():
                raise RuntimeError(f"cannot read the answer: {text}")
            tell(web.get(f"/runs/{broken.pk}"))
        elif n % 3 == 1:
            tell(api.post("/api/v1/feedback/", {"recommendation": text, "kind": text, "note": "x"}, format="json"))
        else:
            tell(Client().get("/nowhere", {"q": text}))
            tell(web.get(f"/nowhere/{text}"))

    # and people are told what was masked, where and when, without a value
    page = tell(web.get("/masked/")).content.decode()
    listed = tell(web.get("/masked/?export=csv"))
    assert "Masked data of" in page
    told = {tuple(line.split(",")[:2]): int(line.split(",")[2]) for line in answers[-1].splitlines()[1:]}
    assert listed.status_code == 200
    assert told[("telephone", "feedback")] >= EACH // 7
    assert {where for _, where in told} >= {"feed load", "names and search terms of feeds", "audit entry", "agent run", "clean room query", "exported file", "quarantine", "recommendation"}  # fmt: skip
    assert "e-mail" not in people.web(people.stranger).get("/masked/").content.decode()
    assert people.web(people.stranger).get(f"/masked/?brand={people.brand.slug}").status_code == 404

    places = {"rows": stored(), "answers": "\n".join(answers), "logs": lines.getvalue(), "export": exported, "prompts": "\n".join(model.heard)}  # fmt: skip
    hits = {(door, where, said) for door, all_ in planted.items() for where, text in places.items() for said in readable(all_, text)}  # fmt: skip
    assert not hits, [
        places[where][max(0, places[where].find(said) - 300) :][:400] for _, where, said in sorted(hits)[:2]
    ]
    assert sum(map(len, planted.values())) >= 500
    assert "[EMAIL_" in places["rows"] and "[CREDIT_CARD_" in places["logs"]  # noqa: PT018


def test_a_line_that_cannot_be_looked_through_is_left_out_and_stops_nothing(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    structlog.get_logger("rmn.test").info("odd", what=Odd(), where="a@example.com")
    monkeypatch.setattr(masking.pii, "mask", lambda *_, **__: 1 / 0)
    structlog.get_logger("rmn.test").info("odd_again", where="b@example.com")
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [row["event"] for row in told] == ["odd", "odd_again"]
    assert "example.com" not in lines.getvalue()


def test_a_line_has_a_bounded_length_and_keeps_ids_counts_and_our_own_addresses() -> None:
    said = "run 2f5c1f7e-3b1a-4c7e-9d0e-1a2b3c4d5e6f took 2026-11-28T07:35:14.123456+00:00 at 127.0.0.1:8000 for campaign 4155550134"
    assert masking.line(said) == said
    assert "203.0.113.7" not in masking.line("from 203.0.113.7")
    assert len(masking.line("x1 " * 2**20)) < masking.LONGEST + 100


@pytest.mark.parametrize("name", ["feed_2026-11-28.csv", "report.csv.gz", "Sales 2026-01-01 to 2026-01-07.xlsx"])
def test_the_name_of_a_file_without_anybody_in_it_stays(people: People, name: str) -> None:
    assert FeedLoad.objects.create(brand=people.brand, retailer=people.retailer, file_name=name, file_sha256="0" * 64).file_name == name  # fmt: skip


@pytest.mark.parametrize("row", masking.tables())
def test_what_a_model_names_to_be_masked_is_a_field_of_its(row: type[models.Model]) -> None:
    assert {field.name for field in row._meta.get_fields()} >= masking.fields(row).keys()
