"""Adapters at work: kept as files and rows, proved on the server, chosen by tenant, and asked.

Who may use which adapter is decided here, from the brand, the retailer and the task; no request
ever names one. An adapter's name on the server is its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from agents.domain.deployment import PROBE_TEXTS, Evidence, Probe, Proof, judge, place, weigh
from agents.inference import adapters as files
from agents.inference.base import NoBaseModel, base_digest, template_digest
from agents.inference.errors import AdapterExists, BadAdapter, UnknownAdapter
from agents.inference.launcher import connect
from agents.inference.types import InferenceClient, Message, Question, Reply
from agents.models import Adapter, AdapterAlias, Deployment, Generation
from campaigns.models import Recommendation
from feedback.models import Feedback
from retailers.models import Brand, Retailer
from rmn.lib.errors import BadInput, RmnError
from rmn.lib.rows import scope_text


class NotProved(RmnError):
    """The adapter did not act as it should on the server; it was not given the alias."""


class WrongAdapter(RmnError):
    """The server says that other weights answered than were asked for; the text was thrown away."""


@contextmanager
def inference(timeout_s: float = 120.0) -> Iterator[InferenceClient]:
    """A client of RMN_INFERENCE_URL, or of our own server for as long as the block runs."""
    with connect(
        settings.RMN_INFERENCE_URL,
        settings.RMN_INFERENCE_KIND,
        settings.RMN_BASE_MODEL,
        settings.RMN_ADAPTERS,
        timeout_s,
    ) as client:
        yield client


# -- versions: files and rows


def keep(folder: Path) -> files.AdapterInfo:
    """Check an adapter folder and copy it to the adapters folder under its digest; the copy is whole or absent.

    Raises:
        BadAdapter: the folder is not sound, or was made for another base model.
    """
    folder = Path(folder)
    info = inspect(folder)
    target = Path(settings.RMN_ADAPTERS) / info.digest
    if target.is_dir():
        return inspect(target)  # the same content; damaged copies are named
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{info.digest[:16]}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    part.mkdir()
    try:
        for name in (files.CONFIG, files.WEIGHTS, files.MANIFEST):
            if (folder / name).exists():
                shutil.copyfile(folder / name, part / name)
        with contextlib.suppress(OSError):  # somebody else was faster: the content is the same
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return inspect(target)


def inspect(folder: Path) -> files.AdapterInfo:
    """All checks on a folder, against the base model of this installation."""
    base = Path(settings.RMN_BASE_MODEL)
    if not (base / "config.json").is_file():
        raise NoBaseModel(f"{base}: no base model; run 'make install' or set RMN_BASE_MODEL")
    try:
        template = template_digest(base)
    except NoBaseModel:
        template = ""
    shape = files.BaseShape.of(base)
    return files.check(folder, shape, base_digest=base_digest(base), template_digest=template)


def register(
    folder: Path,
    *,
    kind: str,
    brand: Brand | None,
    retailer: Retailer | None,
    task: str,
    gate: Mapping[str, Any] | None = None,
) -> Adapter:
    """Keep a folder and give it its row; the same content in the same scope is the same row.

    Raises:
        BadAdapter: the folder is not sound, or its manifest names another brand.
    """
    info = keep(folder)
    named = info.manifest.get("brand")
    if named and brand is not None and named != brand.slug:
        raise BadAdapter(f"{folder}: made for the brand {named!r}, not for {brand.slug!r}")
    row, created = Adapter.objects.get_or_create(
        scope=scope_text(brand, retailer, task),
        digest=info.digest,
        defaults={
            "brand": brand,
            "retailer": retailer,
            "task": task,
            "kind": kind,
            "base_model": str(info.manifest.get("base_model") or Path(settings.RMN_BASE_MODEL).name),
            "rank": info.rank,
            "parents": list(info.manifest.get("parents") or []),
            "manifest": {key: value for key, value in info.manifest.items() if key != "probes"},
            "gate": dict(gate or {}),
        },
    )
    if not created and gate:
        row.gate = dict(gate)
        row.save(update_fields=["gate"])
    return row


def folder_of(adapter: Adapter) -> Path:
    return Path(settings.RMN_ADAPTERS) / adapter.digest


def find(text: str) -> Adapter:
    """A version by UUID, digest, or enough of its digest.

    Raises:
        BadInput: none, or several.
    """
    found = list(Adapter.objects.filter(_named(text))[:3])
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadInput(f"adapter {text[:80]!r}: no such version; see the adapters page or GET /api/v1/adapters/")
    raise BadInput(f"adapter {text[:80]!r} stands for several versions; give its UUID: {found[0].uuid} or others")


def _named(text: str) -> Q:
    try:
        return Q(uuid=uuid.UUID(text)) if len(text) in (32, 36) else Q(digest__startswith=_hex(text))
    except ValueError:
        return Q(digest__startswith=_hex(text))


def _hex(text: str) -> str:
    if len(text) < 6 or not set(text) <= set("0123456789abcdef"):
        raise BadInput(f"adapter {text[:80]!r}: neither a UUID nor six or more digits of a digest")
    return text


# -- deployment


def prove(client: InferenceClient, adapter: Adapter) -> Proof:
    """Load a version and prove that it acts, that it acts as trained, and that a wrong name is refused.

    Raises:
        BadAdapter: the server refuses the folder.
        InferenceError: the server does not answer.
    """
    name = adapter.digest
    ensure(client, adapter)
    recorded = [probe for probe in files.read_manifest(folder_of(adapter)).get("probes") or [] if probe.get("text")]
    probes = [
        Probe(
            base=client.score(probe["text"]),
            served=client.score(probe["text"], name),
            trained=probe.get("logprobs"),
            trained_base=probe.get("base_logprobs"),
        )
        for probe in recorded[:16] or [{"text": text} for text in PROBE_TEXTS]
    ]
    proof = judge(probes)
    reasons = list(proof.reasons)
    if not recorded and not adapter.manifest.get("base_digest"):
        reasons.append("its manifest records neither probes nor the base model it was trained on")
    if not _refuses_a_wrong_name(client):
        reasons.append("the server answers to a name that no adapter has")
    return replace(proof, reasons=tuple(reasons))


def _refuses_a_wrong_name(client: InferenceClient) -> bool:
    try:
        client.generate(Question(prompt="a", adapter=f"nobody-{uuid.uuid4().hex[:12]}", max_tokens=1))
    except UnknownAdapter:
        return True
    return False


def wish_for_deployment(*, adapter: Adapter, alias: str = "champion", share: float = 1.0, by: Any = None) -> Deployment:
    """Record a deployment; nothing is queued yet.

    Raises:
        BadInput: a version that no brand owns, one that was revoked, or a share outside 0 to 1.
    """
    if adapter.brand is None:
        raise BadInput(f"{adapter}: shared knowledge serves no brand by itself; compose it into a version of the brand")
    if adapter.state == Adapter.State.REVOKED:
        raise BadInput(f"{adapter} was withdrawn; train or compose a new version")
    if alias not in ("champion", "challenger", "shadow"):
        raise BadInput(f"alias {alias!r}: champion, challenger or shadow")
    if not 0 < share <= 1:
        raise BadInput(f"share {share}: above 0 and at most 1")
    return Deployment.objects.create(
        brand=adapter.brand,
        adapter=adapter,
        alias=alias,
        share=share,
        requested_by=by,
        max_attempts=2,
        config={"adapter": adapter.digest, "alias": alias, "share": share},
    )


def deploy(run: Deployment) -> None:
    """The work of a deployment, inside ``run.tracked()``: copy, load, prove, move the alias.

    Raises:
        NotProved: the proof failed; nothing was moved.
    """
    adapter = run.adapter
    run.report(0.1, "Checking the files")
    info = inspect(folder_of(adapter))
    if info.digest != adapter.digest:
        raise NotProved(f"{adapter}: its files have the digest {info.digest[:12]}")
    run.report(0.2, "Reaching the model server")
    with inference() as client:
        run.report(0.4, "Loading and proving")
        proof = prove(client, adapter)
    run.proof = adapter.proof = proof.as_json() | {"at": timezone.now().isoformat()}
    run.save(update_fields=["proof"])
    adapter.save(update_fields=["proof"])
    if not proof.passed:
        raise NotProved(f"{adapter} was not deployed: {'; '.join(proof.reasons)}")
    run.report(0.9, f"Proved: {proof.acts:.3f} nats a token from the base")
    move(adapter, run.alias, share=run.share, reason=f"deployed by run {run.pk}")


@transaction.atomic
def move(adapter: Adapter, alias: str, *, share: float = 1.0, reason: str = "") -> AdapterAlias:
    """Point a scope's alias at a version; the old champion becomes previous, and stays loaded."""
    rows = _locked(adapter.scope)
    champion = rows.get("champion")
    if alias == "champion" and champion is not None and champion.adapter_id != adapter.pk:
        _point(rows, adapter, "previous", champion.adapter, 1.0, "champion before")
    if alias == "champion":
        for other in ("challenger", "shadow"):
            if other in rows and rows[other].adapter_id == adapter.pk:
                rows[other].delete()  # promoted: it challenges nobody any more
    moved = _point(rows, adapter, alias, adapter, share, reason)
    adapter.state = Adapter.State.PUBLISHED if alias == "champion" else Adapter.State.STAGED
    adapter.save(update_fields=["state"])
    return moved


@transaction.atomic
def roll_back(scope: str, alias: str, reason: str) -> AdapterAlias | None:
    """Take a version back in one transaction: champion returns to previous, others leave.

    The version withdrawn is marked revoked, so that feedback on it is left out of training.

    Returns:
        The champion's alias after it, None where the base serves again.

    Raises:
        BadInput: nothing is deployed under that alias.
    """
    rows = _locked(scope)
    held = rows.get(alias)
    if held is None or (alias == "champion" and held.adapter is None):
        raise BadInput(f"{scope}: nothing is deployed as {alias}; there is nothing to roll back")
    withdrawn = held.adapter
    previous = rows.get("previous")
    if alias != "champion":
        held.delete()
        champion = rows.get("champion")
    elif previous is not None and previous.adapter is not None:
        champion = _point(rows, previous.adapter, "champion", previous.adapter, 1.0, reason)
        previous.delete()
    else:
        held.adapter, held.reason = None, reason
        held.save()
        champion = held
    if withdrawn is not None and not AdapterAlias.objects.filter(adapter=withdrawn).exists():
        withdrawn.state = Adapter.State.REVOKED
        withdrawn.save(update_fields=["state"])
        _withdraw_drafts({withdrawn.digest})
    return champion


@transaction.atomic
def revoke(digests: set[str], reason: str) -> list[str]:
    """Withdraw versions for good wherever they serve; what serves after it is none of them.

    A champion goes back to ``previous`` where that may still serve, else to the base model.

    Returns:
        The scopes where something else serves now.
    """
    moved = []
    rows = Adapter.objects.filter(digest__in=digests)
    for scope in sorted(set(rows.values_list("scope", flat=True))):
        held = _locked(scope)
        gone = {name for name, row in held.items() if row.adapter is not None and row.adapter.digest in digests}
        before = held.get("previous")
        for name in gone - {"champion"}:
            held[name].delete()
        if "champion" in gone:
            fit = before is not None and before.adapter is not None and "previous" not in gone
            _point(held, held["champion"].adapter, "champion", before.adapter if fit else None, 1.0, reason)  # type: ignore[arg-type, union-attr]
            if fit:
                before.delete()  # type: ignore[union-attr]
        if gone:
            moved.append(scope)
    rows.update(state=Adapter.State.REVOKED)
    _withdraw_drafts(digests)
    return moved


def _withdraw_drafts(digests: set[str]) -> None:
    """What a withdrawn version wrote is offered no more, and what was said of it counts no more."""
    Recommendation.objects.filter(adapter_digest__in=digests).update(status=Recommendation.Status.WITHDRAWN)


def discard(digests: set[str]) -> None:
    """Take versions' weights off this machine, and off the model server where it is reached."""
    for digest in digests:
        shutil.rmtree(Path(settings.RMN_ADAPTERS) / digest, ignore_errors=True)
    if settings.RMN_INFERENCE_URL:
        with contextlib.suppress(RmnError), inference() as client:
            for digest in digests:
                with contextlib.suppress(UnknownAdapter):
                    client.unload(digest)


def _locked(scope: str) -> dict[str, AdapterAlias]:
    # no join here: PostgreSQL locks no nullable side, MariaDB knows no "of"
    rows = AdapterAlias.objects.select_for_update().filter(scope=scope)
    return {row.name: row for row in rows}


def _point(
    rows: dict[str, AdapterAlias], like: Adapter, name: str, adapter: Adapter | None, share: float, reason: str
) -> AdapterAlias:
    row = rows.get(name) or AdapterAlias(scope=like.scope, name=name, brand=like.brand)
    row.adapter, row.share, row.reason = adapter, share, reason
    row.save()
    return row


def evidence(scope: str) -> Evidence | None:
    """How the challenger does in blind pairs against the champion; None without both."""
    rows = {row.name: row.adapter for row in AdapterAlias.objects.filter(scope=scope).select_related("adapter")}
    champion, challenger = rows.get("champion"), rows.get("challenger")
    if challenger is None or challenger.brand_id is None:
        return None
    ours, theirs = challenger.digest, champion.digest if champion else ""
    pairs = Feedback.objects.filter(
        brand_id=challenger.brand_id, task=challenger.task, kind="pair", origin="human", undone_at=None, is_gold=False
    )
    wins = pairs.filter(
        Q(adapter_digest=ours, other_adapter_digest=theirs, outcome="a")
        | Q(adapter_digest=theirs, other_adapter_digest=ours, outcome="b")
    ).count()
    losses = pairs.filter(
        Q(adapter_digest=ours, other_adapter_digest=theirs, outcome="b")
        | Q(adapter_digest=theirs, other_adapter_digest=ours, outcome="a")
    ).count()
    return weigh(wins, losses)


# -- who answers


@dataclass(frozen=True)
class Route:
    """Which version answers for a scope; no adapter means the base model."""

    adapter: Adapter | None
    alias: str

    @property
    def digest(self) -> str:
        return self.adapter.digest if self.adapter else ""


def route(*, brand: Brand, retailer: Retailer | None, task: str, key: str = "") -> Route:
    """The version for a brand at a retailer on a task: the narrowest scope that has one.

    Args:
        key: what sticks to one version during a canary: the campaign's or the person's UUID.
    """
    for scope in dict.fromkeys((scope_text(brand, retailer, task), scope_text(brand, None, task))):
        rows = {
            row.name: row for row in AdapterAlias.objects.filter(scope=scope, brand=brand).select_related("adapter")
        }
        challenger = rows.get("challenger")
        if challenger is not None and challenger.adapter and key and place(key, scope) < challenger.share:
            return Route(challenger.adapter, "challenger")
        champion = rows.get("champion")
        if champion is not None:
            return Route(champion.adapter, "champion" if champion.adapter else "base")
    return Route(None, "base")


def reader(retailer: Retailer | None) -> Adapter | None:
    """The version that says which field a column of the retailer's reports is; it serves nothing else."""
    scope = scope_text(None, retailer, "")
    row = AdapterAlias.objects.filter(scope=scope, brand=None, name="champion").select_related("adapter").first()
    return row.adapter if row is not None else None


def aliases(*, brand: Brand, retailer: Retailer | None, task: str) -> dict[str, Route]:
    """Champion, and challenger and shadow where the narrowest scope has them."""
    found = {"champion": route(brand=brand, retailer=retailer, task=task)}
    scopes = (scope_text(brand, None, task), scope_text(brand, retailer, task))
    rows = AdapterAlias.objects.filter(scope__in=scopes, brand=brand, name__in=("challenger", "shadow"))
    for row in sorted(rows.select_related("adapter"), key=lambda row: scopes.index(row.scope)):
        if row.adapter is not None:
            found[row.name] = Route(row.adapter, row.name)
    return found


def ensure(client: InferenceClient, adapter: Adapter) -> None:
    """Have the server serve a version under its digest."""
    folder = Path(settings.RMN_ADAPTERS_ON_SERVER or settings.RMN_ADAPTERS).absolute() / adapter.digest
    with contextlib.suppress(AdapterExists):
        client.load(adapter.digest, str(folder), {"digest": adapter.digest})


def _load_again(client: InferenceClient, route: Route) -> None:
    """Give a server that was restarted, or never had it, the route's adapter; inside ``except UnknownAdapter``."""
    if route.adapter is None:
        raise
    ensure(client, route.adapter)


def stream(
    client: InferenceClient, route: Route, messages: Sequence[Message], *, brand: Brand, **how: Any
) -> Iterator[str]:
    """A text through a route, piece by piece; closing the iterator stops the work on the server.

    Raises:
        InferenceError: the server did not answer.
    """
    question = Question(messages=messages, adapter=route.digest or None, tenant=str(brand.uuid), **how)
    try:
        yield from client.stream(question)
    except UnknownAdapter:
        _load_again(client, route)
        yield from client.stream(question)


def ask(
    client: InferenceClient,
    route: Route,
    messages: Sequence[Message],
    *,
    brand: Brand,
    retailer: Retailer | None,
    task: str,
    prompt_version: str = "",
    **how: Any,
) -> tuple[Reply, Generation]:
    """Have a text written through a route, and record by whom.

    Args:
        how: further fields of ``Question``: max_tokens, temperature, seed, schema ...

    Returns:
        The reply, and its Generation, not saved yet: the caller masks the text and saves.

    Raises:
        WrongAdapter: the server says that other weights answered.
        InferenceError: it did not answer.
    """
    question = Question(messages=messages, adapter=route.digest or None, tenant=str(brand.uuid), **how)
    try:
        reply = client.generate(question)
    except UnknownAdapter:
        _load_again(client, route)
        reply = client.generate(question)
    if route.digest and reply.model != route.digest:
        raise WrongAdapter(f"asked {route.digest[:12]}, {reply.model[:80]!r} answered")
    if route.digest and "-rmn-" in reply.fingerprint and route.digest[:16] not in reply.fingerprint:
        raise WrongAdapter(f"asked {route.digest[:12]}, the server's weights are {reply.fingerprint[-16:]}")
    row = Generation(
        brand=brand,
        retailer=retailer,
        task=task,
        alias=route.alias,
        model=reply.model[:160],
        adapter_digest=route.digest,
        prompt_version=prompt_version,
        prompt_digest=hashlib.sha256(json.dumps(list(map(dict, messages)), sort_keys=True).encode()).hexdigest(),
        text=reply.text,
        sampling=question.sampling,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        latency_s=reply.latency_s,
        finish_reason=reply.finish,
    )
    return reply, row
