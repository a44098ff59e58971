"""Secrets stay secret: planted ones are searched for wherever something is written, and keys change under load."""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
import re
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from benchmarks.load import Client, Request
from benchmarks.stack import Stack, free_port, postgres_programs, running, until
from tests.faults.test_stack import SLOW, told

SEED = "import json; from benchmarks import seed; print(json.dumps(seed.fill(brands=2, campaigns=5, days=3)))"
CONSOLE = """
import json
from django.contrib import admin
from django.urls import reverse
from rmn.lib import tenancy
with tenancy.everyone():
    found = []
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        found.append(reverse(name + "_changelist"))
        found += [reverse(f"{name}_{page}", args=[key]) for key in model._base_manager.values_list("pk", flat=True)[:3] for page in ("change", "history")]
print(json.dumps(found))
"""


def planted() -> str:
    return f"planted{uuid.uuid4().hex}"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[tuple[Stack, dict[str, str]]]:
    """A system whose configuration holds planted secrets, and those."""
    if postgres_programs() is None:
        pytest.skip("PostgreSQL's server programs are not installed")
    names = ["SECRET_KEY", "RMN_DATA_KEY", "RMN_METRICS_TOKEN", "EMAIL_HOST_PASSWORD", "SECRET_KEY_BEFORE"]
    given = {name: planted() for name in names}
    more = {"RMN_LOG_LEVEL": "INFO", "EMAIL_BACKEND": "django.core.mail.backends.locmem.EmailBackend", "RMN_OUTBOUND_ALLOW": "hooks.example.invalid"}  # fmt: skip
    with running(folder=tmp_path, environment=given | more, password=planted(), web=1, threads=4) as found:
        yield found, given | {"database password": found.password}


def log_in(stack: Stack, name: str, password: str) -> httpx2.Client:
    client = httpx2.Client(base_url=stack.url, follow_redirects=True, timeout=60 * SLOW)
    client.get("/login/")
    client.post(
        "/login/", data={"username": name, "password": password, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    )
    return client


def test_planted_secrets_are_found_nowhere(stack: tuple[Stack, dict[str, str]], tmp_path: Path) -> None:
    """Twenty of them, in logs, messages, dumps, exports, error pages, console and API (27)."""
    site, secrets = stack
    heard = overheard(site)
    brand = site.ask(SEED)["brands"][0]
    secrets |= {f"password of {who}": planted() for who in ("ops", "person")}
    secrets |= {"mistyped password": planted(), "clean-room key": planted(), "false token": planted()}
    totp = site.ask(f"""
import json
from django.contrib.auth.models import User
from django_otp.plugins.otp_totp.models import TOTPDevice
from agents.models import CleanRoomConnection
from retailers.models import Brand, Retailer
from rmn.lib import sealing, tenancy
with tenancy.everyone():
    for name, password in (("ops", {secrets["password of ops"]!r}), ("person-0-0", {secrets["password of person"]!r})):
        user = User.objects.get(username=name)
        user.set_password(password)
        user.save()
    brand = Brand.objects.get(slug={brand["slug"]!r})
    CleanRoomConnection.objects.create(brand=brand, retailer=Retailer.objects.first(), name="Room", endpoint="https://hooks.example.invalid/",
        sealed_key=sealing.seal({secrets["clean-room key"]!r}, str(brand.uuid)))
    print(json.dumps(TOTPDevice.objects.create(user=User.objects.get(username="ops"), name="phone").key))
""")
    secrets["second factor"] = totp
    said: list[str] = []
    codes: Counter[int] = Counter()

    def ask(client: httpx2.Client, method: str, path: str, **given: Any) -> None:
        answer = client.request(method, path, **given)
        said.append(f"{path} {answer.text}")
        codes[answer.status_code] += 1

    log_in(site, "person-0-0", secrets["mistyped password"])
    ops = log_in(site, "ops", secrets["password of ops"])
    secrets["session"] = ops.cookies["sessionid"]
    api = httpx2.Client(base_url=f"{site.url}/api/v1", timeout=60 * SLOW)
    pair = api.post("/token/", json={"username": "person-0-0", "password": secrets["password of person"]}).json()
    secrets |= {"access token": pair["access"], "refresh token": pair["refresh"]}
    again = api.post("/token/refresh/", json={"refresh": pair["refresh"]}).json()
    secrets |= {"newer refresh token": again["refresh"], "newer access token": again["access"]}
    api.headers["Authorization"] = f"Bearer {ops_token(site)}"
    hooks = site.ask(f"""
import json
from retailers import webhooks
from retailers.models import Brand, Webhook
from rmn.lib import tenancy
with tenancy.everyone():  # by the API their addresses would have to resolve
    found = []
    for n in range(3):
        hook = Webhook(brand=Brand.objects.get(slug={brand["slug"]!r}), url=f"https://hooks.example.invalid/{{n}}")
        found.append([webhooks.begin(hook) or webhooks.new_secret(hook), hook.save(), str(hook.uuid)])
    print(json.dumps(found))
""")
    for n, (secret, _, key) in enumerate(hooks):
        secrets[f"webhook {n}"] = secret
        assert api.post(f"/webhooks/{key}/ping/", headers={"Idempotency-Key": f"ping-{n}"}).status_code == 202
    assert len(secrets) >= 20

    # what goes wrong, and what is asked with the wrong thing in the wrong place
    ask(api, "GET", "/campaigns/", headers={"Authorization": f"Bearer {secrets['false token']}"})
    ask(api, "POST", "/token/", json={"username": "person-0-0", "password": secrets["mistyped password"]})
    ask(api, "POST", "/webhooks/", json={"brand": brand["slug"], "url": "http://127.0.0.1/"})
    ask(
        httpx2.Client(timeout=60 * SLOW),
        "GET",
        f"{site.url}/metrics",
        headers={"Authorization": f"Bearer {secrets['RMN_METRICS_TOKEN']}"},
    )
    site.sql("alter table campaigns_campaign rename column name to name_away")
    for client, path in ((api, "/campaigns/"), (ops, "/admin/campaigns/campaign/"), (ops, "/budgets/")):
        ask(client, "GET", path)
    site.sql("alter table campaigns_campaign rename column name_away to name")
    site.sql("alter table auth_user rename column first_name to name_away")
    ask(api, "POST", "/token/", json={"username": "person-0-0", "password": secrets["password of person"]})
    site.sql("alter table auth_user rename column name_away to first_name")
    assert codes[500] >= 3, codes
    for path in (
        "/webhooks/",
        "/webhook-deliveries/",
        "/clean-room-queries/",
        "/audit/?page_size=200",
        "/runs/",
        "/nothing/",
    ):
        ask(api, "GET", path)
    until(lambda: not site.sql("select 1 from retailers_delivery where attempts = 0"), 60 * SLOW, "messages were tried")
    pages = site.ask(CONSOLE)
    assert len(pages) > 100
    for path in (*pages, "/health/", "/readyz", "/account/second-factor/", "/audit/", "/nothing"):
        ask(ops, "GET", path)
    assert codes[200] > len(pages), codes
    site.command("backup", "--to", str(tmp_path / "saved"))
    site.command("export_tenant", "--brand", brand["slug"], "--to", str(tmp_path / "mine"))
    dump = subprocess.run(
        [postgres_programs() / "pg_dump", site._as("postgres")], capture_output=True, text=True, check=True  # type: ignore[operator]
    ).stdout  # fmt: skip
    without = re.sub(r"COPY public\.(django_session|otp_totp_totpdevice) .*?\n\\\.\n", "", dump, flags=re.DOTALL)
    places = {
        "answers": "\n".join(said),
        "logs": below(tmp_path / "log"),
        "backup": re.sub(f'"{totp}"', "", below(tmp_path / "saved")),  # a second factor is kept, or nobody could log in
        "export": below(tmp_path / "mine"),
        "database but sessions and second factors": without,
        "broker and cache": readable("\n".join(map(str, everything_in(site)))),
        "messages": readable("\n".join(heard)),
        "files": below(tmp_path / "files"),
    }
    hits = [
        f"{name} in {place}" for place, text in places.items() for name, secret in secrets.items() if secret in text
    ]
    assert not hits
    there = {"answers": brand["slug"], "logs": "request_finished", "backup": brand["slug"], "export": brand["slug"], "messages": f'"tenant": "{brand["id"]}"'}  # fmt: skip
    assert [place for place, word in there.items() if word not in places[place]] == [], "not read to the bottom"
    told("27", f"{len(secrets)} secrets, {len(said)} answers {dict(codes)}, {len(heard):,} commands to the broker, {sum(map(len, places.values())):,} letters: 0 hits")  # fmt: skip


def ops_token(site: Stack) -> str:
    return site.ask("""
import json
from django.contrib.auth.models import User
from rest_framework_simplejwt.tokens import AccessToken
print(json.dumps(str(AccessToken.for_user(User.objects.get(username="ops")))))
""")


def below(folder: Path) -> str:
    found = []
    for path in sorted(folder.rglob("*")) if folder.exists() else []:
        if path.is_file():
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found.append(data.decode(errors="replace"))
    return "\n".join(found)


def overheard(site: Stack) -> list[str]:
    """All that broker and cache are told from now on, growing until the broker is gone."""
    found: list[str] = []
    begun = threading.Event()

    def listen() -> None:
        with (
            suppress(redis.RedisError, OSError),
            redis.Redis(port=site.broker_port, socket_timeout=None).monitor() as monitor,
        ):
            begun.set()
            while True:
                found.append(monitor.connection.read_response().decode(errors="replace"))

    threading.Thread(target=listen, daemon=True).start()
    assert begun.wait(30)
    return found


def readable(text: str) -> str:
    """The text, and what it holds in base64, as messages to workers do."""
    with_padding = (one + "=" * (-len(one) % 4) for one in re.findall(r"[A-Za-z0-9+/]{24,}", text))
    return "\n".join(
        [text, *(base64.b64decode(one).decode(errors="replace") for one in with_padding if len(one) % 4 == 0)]
    )


def everything_in(site: Stack) -> Iterator[Any]:
    for number in (0, 1):
        broker = site.broker(number)
        for key in broker.scan_iter():
            kind = broker.type(key)
            yield key
            if kind == b"string":
                yield broker.get(key)
            elif kind == b"list":
                yield from broker.lrange(key, 0, -1)
            elif kind == b"hash":
                yield broker.hgetall(key)
            elif kind == b"zset":
                yield broker.zrange(key, 0, -1)
            else:
                yield broker.smembers(key)


def test_keys_change_while_calls_go_on_and_none_fails(tmp_path: Path) -> None:
    """Two sites behind each other, restarted one after the other at each step; tokens of either open both (27)."""
    old, new = planted(), planted()
    ports = free_port(), free_port()
    codes: Counter[int] = Counter()
    with running(folder=tmp_path, sqlite=True, environment={"SECRET_KEY": old}, web=0, workers=0, beats=0) as site:
        brand = site.ask(SEED)["brands"][0]
        for port in ports:
            part = site.child(f"web-{port}", ["gunicorn", "rmn.wsgi", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "2"])  # fmt: skip
            part.start()
        refresh = site.ask("""
import json
from django.contrib.auth.models import User
from rest_framework_simplejwt.tokens import RefreshToken
print(json.dumps(str(RefreshToken.for_user(User.objects.get(username="person-0-0")))))
""")
        hook = site.ask(f"""
import json
from retailers.models import Brand, Webhook
from rmn.lib import sealing, tenancy
with tenancy.everyone():
    brand = Brand.objects.get(slug={brand["slug"]!r})
    hook = Webhook.objects.create(brand=brand, url="https://example.invalid/", sealed_secret=sealing.seal("whsec", str(brand.uuid)))
    print(json.dumps(hook.pk))
""")
        opened = f"""
import json
from retailers.models import Webhook
from rmn.lib import sealing, tenancy
with tenancy.everyone():
    hook = Webhook.objects.select_related("brand").get(pk={hook})
    print(json.dumps(sealing.unseal(hook.sealed_secret, str(hook.brand.uuid))))
"""
        turn = itertools.count()
        tokens = [brand["people"][0]]

        async def calls(count: int) -> None:
            """As behind a proxy: one site after the other, and on to the next where one is away."""
            nonlocal refresh
            clients = [Client(port) for port in ports]  # connections are their loop's
            for _ in range(count):
                n = next(turn)
                if n % 10 == 9:
                    request = Request("POST", "/api/v1/token/refresh/", "", {"refresh": refresh})
                else:
                    request = Request("GET", "/api/v1/campaigns/", tokens[n % len(tokens)])
                for client in (clients[n % 2], clients[1 - n % 2]):
                    status, _, said = await client.ask(request, 20)
                    if status:
                        break
                codes[status] += 1
                if n % 10 == 9 and status == 200:
                    told = json.loads(said)
                    refresh = told["refresh"]
                    tokens[:] = [*tokens[:1], told["access"]]  # the first, and the newest, whoever signed it

        def roll(**keys: str) -> None:
            site.given.update(keys)
            for port in ports:
                site.parts[f"web-{port}"].stop()
                asyncio.run(calls(10))
                site.parts[f"web-{port}"].start()
                until(lambda port=port: asyncio.run(Client(port).ask(Request("GET", "/healthz", "")))[0] == 200, 60, "it is back")  # fmt: skip
                asyncio.run(calls(20))

        until(lambda: all(asyncio.run(Client(port).ask(Request("GET", "/healthz", "")))[0] == 200 for port in ports), 90, "both answer")  # fmt: skip
        roll(SECRET_KEY_BEFORE=new)
        roll(SECRET_KEY=new, SECRET_KEY_BEFORE=old)
        assert site.ask(opened) == "whsec"
        assert json.loads(site.command("rotate_secrets"))["cannot_be_opened"] == []
        tokens[:] = tokens[1:]
        roll(SECRET_KEY_BEFORE="")
        assert site.ask(opened) == "whsec"
    assert set(codes) == {200}, codes
    told("27", f"keys changed in three steps under {sum(codes.values())} calls: {dict(codes)}")
