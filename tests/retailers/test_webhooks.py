"""Webhooks: what happened is told once, signed, again where nobody took it, and never to another brand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.utils import timezone

from retailers import audit, services, tasks, webhooks
from retailers.models import Delivery, Webhook
from rmn.lib import runs
from rmn.lib.outbound import Refused
from tests.conftest import People
from tests.factories import CurveFitFactory, DeliveryFactory, MembershipFactory, UserFactory

pytestmark = pytest.mark.django_db


class Receiver(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.status, self.got = 204, []  # type: ignore[var-annotated]
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.RMN_OUTBOUND_ALLOW = [server.url]
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hook(people: People, receiver: Receiver) -> Webhook:
    made = Webhook(brand=people.brand, url=receiver.url + "/in")
    made.plain = services.set_up_webhook(made)
    made.save()
    return made


def happen(people: People, action: str = "plan approved") -> None:
    audit.record(brand=people.brand, actor="ops", action=action, subject=people.brand, payload={"secret": "inside"})


def deliver(delivery: Delivery) -> Delivery:
    tasks.deliver(str(delivery.pk), tenant=str(delivery.brand_id))
    delivery.refresh_from_db()
    return delivery


def test_what_happened_is_told_once_and_signed(people: People, hook: Any, receiver: Receiver) -> None:
    happen(people)
    assert [webhooks.announce(timezone.now()) for _ in range(3)] == [1, 0, 0]
    delivery = deliver(Delivery.objects.get())
    assert (delivery.status, delivery.response_status) == ("succeeded", 204)
    [(headers, body)] = receiver.got
    key = base64.b64decode(hook.plain.removeprefix("whsec_"))
    said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"
    assert headers["webhook-id"] == str(delivery.pk)
    told = json.loads(body)
    assert told["type"] == "plan_approved"
    assert told["data"]["subject_id"] == str(people.brand.uuid)
    assert "inside" not in body.decode()  # what it is about is asked for, with a login
    deliver(delivery)
    assert len(receiver.got) == 1  # the broker's second copy of the message


def test_an_ended_run_is_told_and_an_earlier_one_is_not(people: People, hook: Any) -> None:
    CurveFitFactory(brand=people.brand, status="succeeded", finished_at=timezone.now() - timedelta(days=1))
    CurveFitFactory(brand=people.brand, status="failed", finished_at=timezone.now())
    CurveFitFactory(brand=people.other, status="failed", finished_at=timezone.now())
    assert webhooks.announce(timezone.now()) == 1
    assert webhooks.announce(timezone.now()) == 0
    assert Delivery.objects.get().event == "run_failed"


def test_only_events_that_were_asked_for_are_told(people: People, hook: Any) -> None:
    Webhook.objects.update(events=["plan_approved"])
    happen(people, "plan rejected")
    happen(people, "plan approved")
    audit.record(brand=people.other, actor="ops", action="plan approved")
    assert webhooks.announce(timezone.now()) == 1


def test_a_message_nobody_takes_is_tried_again_with_growing_pauses_then_waits_for_a_person(
    people: People, hook: Any, receiver: Receiver
) -> None:
    receiver.status = 503
    happen(people)
    webhooks.announce(timezone.now())
    delivery = Delivery.objects.get()
    pauses = []
    for _ in range(Delivery.MOST_ATTEMPTS):
        deliver(delivery)
        if delivery.status == "queued":
            pauses.append((delivery.queued_at + runs.RESEND_AFTER - timezone.now()).total_seconds())
            assert not Delivery.objects.lost(timezone.now()).exists()  # the sweep leaves it alone until then
            assert Delivery.objects.lost(timezone.now() + timedelta(hours=9)).exists()
    assert delivery.status == "failed"
    assert "answers 503" in delivery.error
    assert all(later > 1.9 * sooner for sooner, later in itertools.pairwise(pauses))
    assert 6 * 3600 < sum(pauses) < 14 * 3600
    receiver.status = 200
    delivery.retry()
    assert deliver(delivery).status == "succeeded"
    ids = {headers["webhook-id"] for headers, _ in receiver.got}
    assert len(ids) == 1  # by which the receiver knows the message again


def test_a_receiver_that_is_gone_is_told_nothing_more(people: People, hook: Any, receiver: Receiver) -> None:
    receiver.status = 410
    happen(people)
    webhooks.announce(timezone.now())
    assert deliver(Delivery.objects.get()).status == "failed"
    hook.refresh_from_db()
    assert not hook.is_active
    happen(people)
    assert webhooks.announce(timezone.now()) == 0


def test_an_address_inside_is_refused_wherever_it_is_typed(people: People, hook: Any) -> None:
    inside = "https://169.254.169.254/latest"
    with pytest.raises(Refused):
        services.set_up_webhook(Webhook(brand=people.brand, url=inside))
    MembershipFactory(user=(it := UserFactory(username="it")), brand=people.brand, role="integration")
    answer = people.api(it).post("/api/v1/webhooks/", {"brand": "acme", "url": inside})
    assert answer.status_code == 422
    assert "needed, not an address" in answer.json()["detail"]
    page = people.web(people.ops).post(
        "/admin/retailers/webhook/add/", {"brand": people.brand.pk, "url": inside, "events": "[]", "is_active": "on"}
    )
    assert "not an address" in page.content.decode()
    Webhook.objects.filter(pk=hook.pk).update(url=inside)  # whatever else wrote it there
    happen(people)
    webhooks.announce(timezone.now())
    assert deliver(Delivery.objects.get()).status == "failed"


def test_its_secret_is_shown_once_and_roles_decide_who_sets_it_up(people: People, receiver: Receiver) -> None:
    MembershipFactory(user=(it := UserFactory(username="it")), brand=people.brand, role="integration")
    wish = {"brand": "acme", "url": receiver.url + "/x", "events": ["plan_approved"]}
    assert people.api(people.owner).post("/api/v1/webhooks/", wish).status_code == 403
    made = people.api(it).post("/api/v1/webhooks/", wish)
    assert made.status_code == 201, made.content
    secret = made.json()["secret"]
    assert secret.startswith("whsec_")
    assert people.api(it).post("/api/v1/webhooks/", wish).status_code == 400
    address = f"/api/v1/webhooks/{made.json()['id']}/"
    assert secret not in people.api(it).get(address).content.decode()
    assert secret not in Webhook.objects.get().sealed_secret
    assert people.api(it).patch(address, {"events": "all"}).status_code == 400
    assert people.api(it).patch(address, {"is_active": False}).json()["is_active"] is False
    pinged = people.api(it).post(f"{address}ping/", {})
    assert pinged.status_code == 202
    listed = people.api(it).get("/api/v1/webhook-deliveries/").json()["results"]
    assert [one["event"] for one in listed] == ["ping"]


def test_the_console_sets_one_up_and_sends_a_dead_letter_again(people: People, receiver: Receiver) -> None:
    client = people.web(people.ops)
    page = client.post(
        "/admin/retailers/webhook/add/",
        {"brand": people.brand.pk, "url": receiver.url, "events": '["plan_approved"]', "is_active": "on"},
        follow=True,
    ).content.decode()
    assert "whsec_" in page
    hook = Webhook.objects.get()
    assert "whsec_" not in client.get(f"/admin/retailers/webhook/{hook.pk}/change/").content.decode()
    letter = DeliveryFactory(brand=people.brand, webhook=hook, status="failed", attempts=9)
    client.post("/admin/retailers/delivery/", {"action": "retry_runs", "_selected_action": [str(letter.pk)]})
    assert deliver(letter).status == "succeeded"
    assert receiver.got
