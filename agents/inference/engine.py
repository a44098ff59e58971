"""One model, many adapters, many requests: continuous batching in one thread.

Each turn takes waiting prompts in (a bounded piece of them, so that running answers do not wait
long), then moves every running sequence one token on. Who has been served least comes first.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agents.inference.adapters import MAX_RANK, NAME, AdapterInfo, check
from agents.inference.base import NoBaseModel, base_digest, template_digest
from agents.inference.decoder import Cache, Decoder, LoadedAdapter
from agents.inference.errors import (
    AdapterExists,
    BadAdapter,
    Cancelled,
    GenerationFailed,
    InferenceError,
    Overloaded,
    TimedOut,
    UnknownAdapter,
)
from agents.inference.sampling import Chooser

Tensor = torch.Tensor


@dataclass(frozen=True)
class Limits:
    """What the server takes on at once."""

    rows: int = 16  # sequences that run together
    waiting: int = 128  # requests in all, running and waiting; more are refused
    input_tokens: int = 2047
    total_tokens: int = 2048
    prefill_tokens: int = 256  # tokens of prompts a turn
    shared_tokens: int = 16  # a beginning this long is taken over from a row that holds it; 0: never
    adapter_bytes: int = 2**30  # weights of adapters held in memory
    max_rank: int = MAX_RANK
    request_s: float = 300.0


@dataclass(frozen=True)
class TokenEvent:
    """One more token of an answer; logprob (natural) is the model's own, before penalties and grammar."""

    id: int
    text: str
    logprob: float
    special: bool
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True)
class EndEvent:
    """The answer is whole, or ``error`` says why not. finish: length, eos_token or stop_sequence."""

    finish: str = ""
    error: InferenceError | None = None


@dataclass(eq=False)
class Request:
    """One sequence: what was asked, and where it stands."""

    prompt: list[int]
    max_new: int
    chooser: Chooser
    sink: Callable[[list[TokenEvent | EndEvent]], None]
    adapter: LoadedAdapter | None = None
    stop: tuple[str, ...] = ()
    top_n: int = 0
    wants_prompt_logprobs: bool = False
    ignore_eos: bool = False
    tenant: str = ""
    deadline: float = math.inf  # of time.monotonic()
    created: float = field(default_factory=time.monotonic)
    started: float = 0.0  # when its prompt was taken in
    first: float = 0.0  # when its first token came
    ended: float = 0.0
    held: int = 0  # tokens in the cache
    output: list[int] = field(default_factory=list)
    text: str = ""
    shown: int = 0  # tokens whose text is settled
    prompt_logprobs: list[float | None] = field(default_factory=list)
    cancelled: bool = False
    finish: str = ""
    done: bool = False

    @property
    def next_token(self) -> int:
        return self.output[-1] if self.output else self.prompt[-1]


class FairQueue:
    """Waiting requests: the tenant that has been served the fewest tokens comes first."""

    def __init__(self) -> None:
        self.waiting: dict[str, deque[Request]] = {}
        self.served: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def push(self, request: Request) -> None:
        """A tenant that comes back starts level with the least served one who is waiting: idling saves nothing."""
        queue = self.waiting.setdefault(request.tenant, deque())
        if not queue:
            others = [self.served.get(name, 0.0) for name, some in self.waiting.items() if some]
            self.served[request.tenant] = max(
                [self.served.get(request.tenant, 0.0), *([min(others)] if others else [])]
            )
        queue.append(request)

    def pop(self) -> Request | None:
        names = [name for name, some in self.waiting.items() if some]
        if not names:
            return None
        name = min(names, key=lambda name: self.served.get(name, 0.0))
        return self.waiting[name].popleft()

    def put_back(self, request: Request) -> None:
        self.waiting.setdefault(request.tenant, deque()).appendleft(request)

    def count(self, tenant: str, tokens: int) -> None:
        self.served[tenant] = self.served.get(tenant, 0.0) + tokens

    def sweep(self, leaves: Callable[[Request], bool]) -> list[Request]:
        """Take out those that leave; tenants without any request are forgotten after a while."""
        gone: list[Request] = []
        for name, queue in list(self.waiting.items()):
            keep: deque[Request] = deque()
            for request in queue:
                (gone if leaves(request) else keep).append(request)
            self.waiting[name] = keep
        if len(self.waiting) > 1000:
            self.waiting = {name: queue for name, queue in self.waiting.items() if queue}
            self.served = {name: served for name, served in self.served.items() if name in self.waiting}
        return gone


@dataclass(frozen=True)
class Kept:
    """A prompt whose keys and values lie in a row. Only the same tenant's, under the same weights, may be taken over."""

    tenant: str
    digest: str  # of the adapter; empty: the base model
    prompt: list[int]

    def common(self, request: Request) -> int:
        """Tokens that the request's prompt begins with too; its last is always read, for what follows it."""
        if self.tenant != request.tenant or self.digest != (request.adapter.digest if request.adapter else ""):
            return 0
        most = min(len(self.prompt), len(request.prompt) - 1)
        return next((at for at in range(most) if self.prompt[at] != request.prompt[at]), most)


def _kept(request: Request) -> Kept:
    return Kept(request.tenant, request.adapter.digest if request.adapter else "", request.prompt)


class AdapterStore:
    """Adapters by name, read from folders under one root, held in memory within a budget of bytes."""

    def __init__(self, root: Path, decoder: Decoder, model: Path, limits: Limits, require_manifest: bool) -> None:
        self.root, self.decoder, self.limits, self.require_manifest = root, decoder, limits, require_manifest
        self.base_digest = base_digest(model)
        try:
            self.template_digest = template_digest(model)
        except NoBaseModel:
            self.template_digest = ""
        self.known: dict[str, AdapterInfo] = {}
        self.bad: dict[str, str] = {}  # folder to what is wrong with it
        self.withdrawn: set[str] = set()
        self.pinned: set[str] = set()
        self.loaded: OrderedDict[str, LoadedAdapter] = OrderedDict()
        self.loads = self.evictions = 0
        self.lock = threading.RLock()

    def scan(self) -> None:
        """Check all folders that are there now; bad ones are remembered with the reason, never served."""
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if folder.name.startswith("."):
                continue
            try:
                self._know(folder.name, {})
            except BadAdapter as error:
                self.bad[folder.name] = str(error)

    def names(self) -> list[str]:
        with self.lock:
            return sorted(self.known)

    def acquire(self, name: str) -> LoadedAdapter:
        """The adapter of that name, held until ``release``.

        Raises:
            UnknownAdapter: there is none, it was unloaded, or its folder is bad.
            Overloaded: all memory for adapters is held by requests.
        """
        with self.lock:
            if not NAME.fullmatch(name) or name in self.withdrawn:
                raise UnknownAdapter(f"adapter {name[:130]!r} is not served here")
            if name not in self.known:
                try:
                    self._know(name, {})
                except BadAdapter as error:
                    self.bad[name] = str(error)
                    raise UnknownAdapter(f"adapter {name!r} is not served here: {error}") from None
            adapter = self._load(name)
            adapter.users += 1
            return adapter

    def release(self, adapter: LoadedAdapter) -> None:
        with self.lock:
            adapter.users -= 1

    def add(self, name: str, path: str, expect: Mapping[str, str] | None = None) -> LoadedAdapter:
        """Load an adapter now and keep it in memory (pinned).

        Args:
            name: the name that requests will use; must be the folder's.
            path: the folder, absolute or under the root; it must lie directly under the root.
            expect: manifest keys that must have these values.

        Raises:
            AdapterExists: the name is loaded already; names never change their weights.
            UnknownAdapter: no such folder, or outside the root.
            BadAdapter: the folder is not sound.
        """
        with self.lock:
            if name in self.loaded and name in self.pinned:
                raise AdapterExists(f"the adapter {name!r} is loaded already; a new version has a new name")
            if not NAME.fullmatch(name):
                raise BadAdapter(f"{name[:80]!r}: not an adapter name (letters, digits, dot, dash, underscore)")
            wanted = Path(path) if Path(path).is_absolute() else self.root / path
            if ".." in wanted.parts or wanted.parent.resolve() != self.root.resolve() or not wanted.is_dir():
                raise UnknownAdapter(f"no adapter found at {str(path)[:200]!r} under the adapters folder")
            if wanted.name != name:
                raise BadAdapter(f"{name}: the folder is named {wanted.name!r}; an adapter's name is its folder's")
            self._know(name, expect or {})
            self.withdrawn.discard(name)
            self.pinned.add(name)
            try:
                return self._load(name)
            except InferenceError:
                self.pinned.discard(name)
                raise

    def remove(self, name: str) -> None:
        """Serve the name no longer; requests that run finish with the weights they started with.

        Raises:
            UnknownAdapter: it was not served.
        """
        with self.lock:
            if name not in self.known:
                raise UnknownAdapter(f"adapter {name[:130]!r} is not served here")
            self.withdrawn.add(name)
            self.pinned.discard(name)
            self.known.pop(name, None)
            self.loaded.pop(name, None)

    @property
    def held_bytes(self) -> int:
        return sum(adapter.size for adapter in self.loaded.values())

    def _know(self, name: str, expect: Mapping[str, str]) -> None:
        info = check(
            self.root / name,
            self.decoder.shape,
            base_digest=self.base_digest,
            template_digest=self.template_digest,
            max_rank=self.limits.max_rank,
            max_bytes=self.limits.adapter_bytes,
            require_manifest=self.require_manifest,
            expect=expect,
        )
        held = self.known.get(name)
        if held is not None and held.digest != info.digest:
            raise BadAdapter(f"{name}: the folder changed since it was first served; a new version has a new name")
        self.known[name] = info
        self.bad.pop(name, None)

    def _load(self, name: str) -> LoadedAdapter:
        if name in self.loaded:
            self.loaded.move_to_end(name)
            return self.loaded[name]
        info = self.known[name]
        try:
            fresh = check(info.folder, self.decoder.shape, require_manifest=self.require_manifest)
            if fresh.digest != info.digest:
                raise BadAdapter(f"{name}: the folder changed since it was first served; a new version has a new name")
            self._make_room(info.size)
            adapter = LoadedAdapter(name, info, self.decoder.dtype, self.decoder.device, self.decoder.shape.layers)
        except BadAdapter as error:
            self.bad[name] = str(error)
            self.known.pop(name, None)
            raise
        self.loads += 1
        self.loaded[name] = adapter
        return adapter

    def _make_room(self, size: int) -> None:
        while self.held_bytes + size > self.limits.adapter_bytes and self.loaded:
            idle = [name for name, held in self.loaded.items() if not held.users and name not in self.pinned]
            idle = idle or [name for name, held in self.loaded.items() if not held.users]
            if not idle:
                raise Overloaded("Model is overloaded: all memory for adapters is in use", 2.0)
            self.loaded.pop(idle[0])
            self.evictions += 1


class Engine:
    """The thread that runs the model."""

    def __init__(self, decoder: Decoder, store: AdapterStore, tokenizer: Any, limits: Limits) -> None:
        self.decoder, self.store, self.tokenizer, self.limits = decoder, store, tokenizer, limits
        self.cache = Cache(decoder, limits.rows, limits.total_tokens)
        ends = tokenizer.eos_token_id
        self.ends = set(ends if isinstance(ends, list) else [ends])
        self.special = set(tokenizer.all_special_ids)
        self.queue = FairQueue()
        self.running: list[Request] = []  # a request's place is its row in the cache
        self.partial: Request | None = None  # a long prompt, part of it taken in; its row is the next one
        # whose prompt each row holds, also after its answer ended: the next that begins alike need not read it again
        self.kept: list[Kept | None] = [None] * limits.rows
        self.shared = 0  # tokens of prompts that were taken over
        self.lock = threading.Condition()
        self.stopping = False
        self.speed = 50.0  # tokens a second, lately
        self.on_step: Callable[[int, float], None] = lambda *_: None
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        with self.lock:
            self.stopping = True
            self.lock.notify()
        self.thread.join(10)

    @property
    def load(self) -> int:
        """Requests running and waiting."""
        return len(self.running) + len(self.queue) + (self.partial is not None)

    def submit(self, request: Request) -> None:
        """Queue a request; its adapter must have been acquired, and is released when it ends.

        Raises:
            Overloaded: too many requests are here already.
        """
        with self.lock:
            if self.stopping:
                raise Overloaded("Model is overloaded: the server is going down", 5.0)
            if self.load >= self.limits.waiting:
                waiting = sum(item.max_new for some in self.queue.waiting.values() for item in some)
                raise Overloaded("Model is overloaded", min(60.0, max(1.0, waiting / max(self.speed, 1.0))))
            self.queue.push(request)
            self.lock.notify()

    def cancel(self, request: Request) -> None:
        with self.lock:
            request.cancelled = True
            self.lock.notify()

    # -- the thread

    def _run(self) -> None:
        torch.set_grad_enabled(False)
        while True:
            with self.lock:
                while not self.stopping and not (self.load):
                    self.lock.wait()
                if self.stopping:
                    break
                self._drop_gone()
                fresh, pieces = self._admit()
            began = time.monotonic()
            tokens = 0
            if pieces:
                tokens += self._guarded(fresh, partial(self._prefill, fresh, pieces))
            if self.running:
                tokens += self._guarded(list(self.running), self._step)
            if tokens:
                took = time.monotonic() - began
                self.speed += 0.1 * (tokens / max(took, 1e-6) - self.speed)
                self.on_step(tokens, took)
        for request in [*self.running, *([self.partial] if self.partial else []), *self.queue.sweep(lambda _: True)]:
            self._end(request, EndEvent(error=GenerationFailed("Request failed during generation: server stopped")))

    def _guarded(self, requests: list[Request], work: Callable[[], int]) -> int:
        try:
            with torch.inference_mode():
                return work()
        except Exception as error:  # noqa: BLE001  # one broken batch must not end the server
            failed = GenerationFailed(f"Request failed during generation: {str(error).splitlines()[0][:200]}")
            with self.lock:
                for request in requests:
                    if not request.done:
                        self._leave(request, EndEvent(error=failed))
            return 0

    def _drop_gone(self) -> None:
        now = time.monotonic()

        def gone(request: Request) -> bool:
            return request.cancelled or now > request.deadline

        here = [*self.running, *([self.partial] if self.partial else [])]
        for request in [request for request in here if gone(request)] + self.queue.sweep(gone):
            error: InferenceError = Cancelled("the client went away")
            if not request.cancelled:
                error = TimedOut(f"the deadline passed after {now - request.created:.1f} s")
            self._leave(request, EndEvent(error=error))

    def _leave(self, request: Request, end: EndEvent) -> None:
        """Take a request out of its row, keep the rows without gaps, and tell whoever asked."""
        if request is self.partial:
            self.partial = None
        elif request in self.running:
            row = self.running.index(request)
            last = self.running.pop()
            if last is not request:
                self.cache.move(len(self.running), row, last.held)
                self.running[row] = last
                # the freed row goes on holding the last one's prompt, and this one's is gone
                self.kept[row] = self.kept[len(self.running)]
            if self.partial is not None:
                self.cache.move(len(self.running) + 1, len(self.running), self.partial.held)
                self.kept[len(self.running)] = None
        self._end(request, end)

    def _end(self, request: Request, end: EndEvent) -> None:
        if request.done:
            return
        request.done, request.ended = True, time.monotonic()
        if request.adapter is not None:
            self.store.release(request.adapter)
        request.sink([end])

    def _admit(self) -> tuple[list[Request], list[tuple[int, int, int]]]:
        """Requests whose prompts are taken in this turn, and the piece of each: (row, held, new)."""
        fresh: list[Request] = []
        pieces: list[tuple[int, int, int]] = []
        budget = self.limits.prefill_tokens
        row = len(self.running)
        while budget > 0 and row < self.limits.rows:
            request = self.partial or self.queue.pop()
            if request is None:
                break
            self.partial = None
            source, held = (row, request.held) if request.held else self._alike(request)
            new = min(len(request.prompt) - held, budget)
            if fresh and (new < len(request.prompt) - held or self._gains(request, fresh, held)):
                self.queue.put_back(request)  # a long prompt begins a turn of its own; a shared one waits for it
                break
            if not request.started:
                request.started = time.monotonic()
                self.queue.count(request.tenant, len(request.prompt) - held)
            if held > request.held:
                if source != row:
                    self.cache.move(source, row, held)
                request.held = held
                self.shared += held
            self.kept[row] = None  # until the prompt is whole
            fresh.append(request)
            pieces.append((row, held, new))
            budget -= new
            row += 1
        return fresh, pieces

    def _alike(self, request: Request) -> tuple[int, int]:
        """The row that holds most of the prompt's beginning, and how many tokens of it; 0 where it is not worth it."""
        if not self.limits.shared_tokens or request.wants_prompt_logprobs:  # these are read off the whole prompt
            return 0, 0
        row, held = max(
            ((row, kept.common(request)) for row, kept in enumerate(self.kept) if kept is not None),
            key=lambda one: one[1],
            default=(0, 0),
        )
        return (row, held) if held >= self.limits.shared_tokens else (0, 0)

    def _gains(self, request: Request, fresh: Sequence[Request], held: int) -> bool:
        """Whether a prompt of this very turn begins so much like it that waiting one turn saves reading it."""
        if not self.limits.shared_tokens or request.wants_prompt_logprobs:
            return False
        common = max(_kept(other).common(request) for other in fresh)
        return common >= held + self.limits.shared_tokens

    def _prefill(self, fresh: list[Request], pieces: list[tuple[int, int, int]]) -> int:
        device = self.decoder.device
        tokens: list[int] = []
        positions: list[int] = []
        owners: list[LoadedAdapter | None] = []
        for request, (_, held, new) in zip(fresh, pieces):
            tokens += request.prompt[held : held + new]
            positions += range(held, held + new)
            owners += [request.adapter] * new
        hidden = self.decoder.forward(
            torch.tensor(tokens, device=device),
            torch.tensor(positions, device=device),
            self.cache.fill(pieces),
            self.decoder.arena.plan(owners),
        )
        start = 0
        whole: list[Request] = []
        lasts: list[int] = []
        for request, (row, held, new) in zip(fresh, pieces):
            if request.wants_prompt_logprobs:
                self._score_prompt(request, hidden[start : start + new], held)
            start += new
            request.held = held + new
            if request.held == len(request.prompt):
                self.kept[row] = _kept(request)
                whole.append(request)
                lasts.append(start - 1)
            else:
                self.partial = request
        # rows were given in order and only the last piece can be partial
        with self.lock:
            self.running += whole
        if whole:
            self._take(whole, self.decoder.logits(hidden[torch.tensor(lasts, device=device)]))
        return len(tokens)

    def _score_prompt(self, request: Request, hidden_NH: Tensor, held: int) -> None:
        """Log-probabilities of the prompt's own tokens, 64 places at a time."""
        if not held:
            request.prompt_logprobs = [None]
        following = request.prompt[held + 1 : held + hidden_NH.shape[0] + 1]
        for start in range(0, len(following), 64):
            wanted = torch.tensor(following[start : start + 64], device=self.decoder.device).unsqueeze(1)
            logs = self.decoder.logits(hidden_NH[start : start + wanted.shape[0]]).log_softmax(-1)
            request.prompt_logprobs += logs.gather(1, wanted).squeeze(1).tolist()

    def _step(self) -> int:
        device = self.decoder.device
        running = list(self.running)
        held = [request.held for request in running]
        hidden = self.decoder.forward(
            torch.tensor([request.next_token for request in running], device=device),
            torch.tensor(held, device=device),
            self.cache.step(held),
            self.decoder.arena.plan([request.adapter for request in running]),
        )
        for request in running:
            request.held += 1
        self._take(running, self.decoder.logits(hidden))
        return len(running)

    def _take(self, requests: list[Request], scores_NV: Tensor) -> None:
        """Choose, record and send the next token of each request."""
        best = scores_NV.argmax(-1).tolist()
        totals = scores_NV.logsumexp(-1).tolist()
        for place, request in enumerate(requests):
            chooser = request.chooser
            try:
                token = best[place] if chooser.is_plain else chooser.choose(scores_NV[place])
                closed = chooser.took(token)
            except RuntimeError as error:
                failed = GenerationFailed(f"Request failed during generation: {str(error)[:200]}")
                with self.lock:
                    self._leave(request, EndEvent(error=failed))
                continue
            request.first = request.first or time.monotonic()
            request.output.append(token)
            self.queue.count(request.tenant, 1)
            top: tuple[tuple[int, str, float], ...] = ()
            if request.top_n:
                values, ids = scores_NV[place].topk(request.top_n)
                top = tuple(
                    (number, self.tokenizer.decode([number]), value - totals[place])
                    for number, value in zip(ids.tolist(), values.tolist())
                )
            finish = self._finish(request, token, closed)
            text = self._text(request, token, finish)
            if not finish and any(stop in request.text[-len(stop) - len(text) :] for stop in request.stop):
                finish = "stop_sequence"
            logprob = float(scores_NV[place, token]) - totals[place]
            request.sink([TokenEvent(token, text, logprob, token in self.special, top)])
            if finish:
                with self.lock:
                    self._leave(request, EndEvent(finish=finish))

    def _finish(self, request: Request, token: int, closed: bool) -> str:
        if token in self.ends and not request.ignore_eos:
            return "eos_token"
        if closed:
            return "eos_token"
        if len(request.output) >= request.max_new or len(request.prompt) + len(request.output) >= (
            self.limits.total_tokens
        ):
            return "length"
        return ""

    def _text(self, request: Request, token: int, finish: str) -> str:
        """The text that this token settles; bytes of an unfinished character wait for the rest."""
        if token in self.special:
            if finish != "eos_token":
                request.shown = len(request.output)
            return str(self.tokenizer.decode([token]))
        start = max(0, request.shown - 4)  # a few tokens of context: some tokenizers join by neighbours
        before = self.tokenizer.decode(request.output[start : request.shown], skip_special_tokens=True)
        now = self.tokenizer.decode(request.output[start:], skip_special_tokens=True)
        if now.endswith("�") and not finish and len(request.output) - request.shown < 4:
            return ""
        text = str(now[len(before) :])
        request.shown = len(request.output)
        request.text += text
        return text
