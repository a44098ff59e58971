"""What the documents tell an integration to type is typed: every curl line, in their order, with what the one before said."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests.conftest import People
from tests.factories import RecommendationFactory

pytestmark = pytest.mark.django_db
DOCUMENTS = Path(__file__).resolve().parents[1] / "docs"
ADDRESS = re.compile(r"^(?:http://)?(?:localhost|127\.0\.0\.1):8000(/.*)$")


def calls(name: str) -> list[list[str]]:
    """The words of each curl line; a backslash at a line's end goes on."""
    text = (DOCUMENTS / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith("curl ")]


def ask(words: list[str], known: dict[str, str]) -> Any:
    method, path, body, headers = "GET", "", None, {}
    rest = iter(words[1:])
    for word in rest:
        if word == "-s":
            continue
        value = next(rest) if word.startswith("-") else word
        for key, found in known.items():
            value = value.replace(f"${key}", found)
        if word == "-X":
            method = value
        elif word == "-H":
            key, _, said = value.partition(": ")
            headers[key] = said
        elif word == "-d":
            body = value
        else:
            found_address = ADDRESS.match(value)
            assert found_address, f"{value}: not an address of the example's site, nor an option known here"
            path = found_address[1]
    kind = headers.pop("Content-Type", "application/json")
    return Client().generic(method, path, body or "", content_type=kind, headers=headers)


def test_what_the_quick_start_tells_an_integration_to_type_works(people: People) -> None:
    person = people.owner
    person.username = "acme"
    person.set_password("demo-only")
    person.save()
    known = {"RECOMMENDATION": str(RecommendationFactory(brand=people.brand).uuid)}
    lines = calls("quickstart.md")
    assert len(lines) >= 5
    for words in lines:
        answer = ask(words, known)
        assert answer.status_code in (200, 201), (words, answer.content)
        known |= {"ACCESS": answer.json()["access"]} if "/token/" in " ".join(words) else {}
    again = ask(lines[3], known)
    assert (again.status_code, again["Idempotency-Replayed"]) == (201, "true")
