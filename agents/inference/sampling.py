"""How the next token is chosen: penalties, grammar, and TGI's sampling parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch

from agents.inference.errors import InvalidRequest

Tensor = torch.Tensor


@dataclass(frozen=True)
class Sampling:
    """TGI's parameters; None leaves a step out. Greedy unless asked otherwise."""

    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None

    @property
    def samples(self) -> bool:
        """TGI samples as soon as a parameter of sampling is given."""
        warps = (self.temperature not in (None, 1.0), self.top_k, self.top_p not in (None, 1.0), self.typical_p)
        return self.do_sample or any(warps)

    @property
    def is_plain(self) -> bool:
        """Whether the highest score wins, with nothing before it."""
        return not self.samples and self.repetition_penalty in (None, 1.0) and not self.frequency_penalty


class Grammars:
    """Compiles JSON schemas and regular expressions to masks over the vocabulary (llguidance)."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._source, self._vocabulary, self._lock = tokenizer, vocabulary, Lock()
        self._inner: Any = None

    def matcher(self, kind: str, value: Any) -> Any:
        """A fresh matcher for one request.

        Args:
            kind: json (a schema, as object or text) or regex.
            value: the schema or the pattern.

        Raises:
            InvalidRequest: the grammar does not compile.
        """
        import llguidance

        try:
            if kind == "regex":
                if not isinstance(value, str):
                    raise ValueError("a regex is text")
                grammar = llguidance.LLMatcher.grammar_from_regex(value)
            else:
                schema = json.loads(value) if isinstance(value, str) else value
                if not isinstance(schema, dict):
                    raise ValueError("a JSON schema is an object")
                # free whitespace is a trap for small models: they never come out of it
                options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
                grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)  # type: ignore[arg-type]
            matcher = llguidance.LLMatcher(self._tokenizer(), grammar, log_level=0)
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidRequest(f"grammar is not valid: {str(error)[:200]}") from None
        if matcher.is_error():
            raise InvalidRequest(f"grammar is not valid: {matcher.get_error().splitlines()[0][:200]}")
        return matcher

    def _tokenizer(self) -> Any:
        with self._lock:
            if self._inner is None:
                import llguidance.hf

                self._inner = llguidance.hf.from_tokenizer(self._source, n_vocab=self._vocabulary)
            return self._inner


class Chooser:
    """Chooses one request's tokens; holds its random numbers and its place in the grammar."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], matcher: Any = None) -> None:
        self.sampling, self.matcher = sampling, matcher
        self.seen = list(prompt)
        self.counts: dict[int, int] = {}
        self.seed = sampling.seed
        self.random: torch.Generator | None = None
        if sampling.samples:
            self.random = torch.Generator()
            self.seed = self.random.seed() % 2**63 if sampling.seed is None else sampling.seed
            self.random.manual_seed(self.seed)

    @property
    def is_plain(self) -> bool:
        """Whether the batch's own argmax will do."""
        return self.matcher is None and self.sampling.is_plain

    def choose(self, scores_V: Tensor) -> int:
        """The next token, from float32 scores."""
        scores = scores_V.to("cpu", copy=True)
        sampling = self.sampling
        if sampling.repetition_penalty not in (None, 1.0):
            ids = torch.tensor(sorted(set(self.seen)))
            held = scores[ids]
            penalty = sampling.repetition_penalty
            scores[ids] = torch.where(held < 0, held * penalty, held / penalty)
        if sampling.frequency_penalty and self.counts:
            ids = torch.tensor(list(self.counts))
            scores[ids] -= sampling.frequency_penalty * torch.tensor(list(self.counts.values()), dtype=scores.dtype)
        if self.matcher is not None:
            allowed = torch.frombuffer(bytearray(self.matcher.compute_logit_bias()), dtype=torch.uint8) > 0
            scores[: allowed.shape[0]][~allowed[: scores.shape[0]]] = -torch.inf
            scores[allowed.shape[0] :] = -torch.inf
        if not sampling.samples:
            return int(scores.argmax())
        return self._draw(scores)

    def took(self, token: int) -> bool:
        """Note the token; True when the grammar is complete and allows nothing more."""
        self.seen.append(token)
        self.counts[token] = self.counts.get(token, 0) + 1
        if self.matcher is None:
            return False
        if not self.matcher.consume_token(token):
            raise RuntimeError(f"the grammar broke: {self.matcher.get_error()[:200]}")
        return bool(self.matcher.is_stopped())

    def _draw(self, scores: Tensor) -> int:
        sampling = self.sampling
        if sampling.temperature is not None:
            scores = scores / sampling.temperature
        if sampling.top_k:
            floor = torch.topk(scores, min(sampling.top_k, scores.shape[0])).values[-1]
            scores[scores < floor] = -torch.inf
        if sampling.top_p is not None and sampling.top_p < 1:
            ordered, ids = torch.sort(scores)
            drop = ordered.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
            drop[-1] = False
            scores[ids[drop]] = -torch.inf
        if sampling.typical_p is not None and sampling.typical_p < 1:
            logs = scores.log_softmax(-1)
            weights = logs.exp()
            entropy = -(logs * weights).nansum()
            _, ids = torch.sort((-logs - entropy).abs())
            keep = int((weights[ids].cumsum(-1) < sampling.typical_p).sum()) + 1
            scores[ids[keep:]] = -torch.inf
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self.random))
