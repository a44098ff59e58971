"""Keys change: what was sealed, signed or handed out under the one before still holds while that one is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from rest_framework.test import APIClient
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from retailers.models import IdempotencyKey, Webhook
from rmn.lib import sealing
from rmn.lib.errors import NotConfigured
from tests.conftest import People


def test_a_secret_sealed_under_the_key_before_opens_until_that_one_is_forgotten(settings: Any) -> None:
    settings.RMN_DATA_KEY, settings.RMN_DATA_KEY_BEFORE = "old", []
    sealed, signature = sealing.seal("s", "brand"), sealing.sign("text")
    settings.RMN_DATA_KEY, settings.RMN_DATA_KEY_BEFORE = "new", ["old"]
    assert sealing.unseal(sealed, "brand") == "s"
    assert sealing.signed_here("text", signature)
    again = sealing.reseal(sealed, "brand")
    settings.RMN_DATA_KEY_BEFORE = []
    assert sealing.unseal(again, "brand") == "s"
    assert not sealing.signed_here("text", signature)
    with pytest.raises(NotConfigured):
        sealing.unseal(sealed, "brand")


@pytest.mark.django_db
def test_all_stored_secrets_are_sealed_anew_and_those_that_do_not_open_are_named(
    people: People, settings: Any, capsys: Any
) -> None:
    settings.RMN_DATA_KEY_BEFORE = ["old"]
    now, settings.RMN_DATA_KEY = settings.RMN_DATA_KEY, "old"
    for n, owner in enumerate((str(people.brand.uuid), "another")):
        Webhook.objects.create(
            brand=people.brand, url=f"https://example.com/{n}", sealed_secret=sealing.seal("s", owner)
        )
    settings.RMN_DATA_KEY = now
    call_command("rotate_secrets")
    told = json.loads(capsys.readouterr().out)
    assert (told["sealed"], len(told["cannot_be_opened"])) == (1, 1)
    settings.RMN_DATA_KEY_BEFORE = []
    hook = Webhook.objects.get(url="https://example.com/0")
    assert sealing.unseal(hook.sealed_secret, str(people.brand.uuid)) == "s"


@pytest.mark.django_db
def test_a_token_signed_under_the_key_before_opens_while_that_one_is_named(people: People, settings: Any) -> None:
    pair = APIClient().post("/api/v1/token/", {"username": "owner", "password": "correct horse"}).json()
    claims = TokenBackend("HS256", settings.SECRET_KEY).decode(pair["access"])
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {TokenBackend('HS256', 'older').encode(claims)}")
    assert client.get("/api/v1/runs/").status_code == 401
    settings.SECRET_KEY_FALLBACKS = ["older"]
    assert client.get("/api/v1/runs/").status_code == 200


@pytest.mark.django_db
def test_a_secret_told_once_lies_open_in_no_table(people: People, settings: Any) -> None:
    settings.RMN_OUTBOUND_ALLOW = ["http://127.0.0.1:9"]
    client = people.api(people.ops)
    body = {"brand": "acme", "url": "http://127.0.0.1:9/hook"}
    said = [client.post("/api/v1/webhooks/", body, format="json", HTTP_IDEMPOTENCY_KEY="k").json() for _ in range(2)]
    assert said[0]["secret"].startswith("whsec_")
    assert said[0] == said[1]
    assert said[0]["secret"] not in str(list(IdempotencyKey.objects.values()))
    pair = APIClient().post("/api/v1/token/", {"username": "owner", "password": "correct horse"}).json()
    assert OutstandingToken.objects.get().token == ""
    assert APIClient().post("/api/v1/token/refresh/", {"refresh": pair["refresh"]}).status_code == 200
