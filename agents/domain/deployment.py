"""Whether an adapter that was deployed acts as it was trained, who meets it, and when it must go back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import betaln
from scipy.stats import beta

from rmn.lib.errors import BadInput

Logs = Sequence[float]

# Texts for adapters whose trainer recorded none: they show that it acts, not that it acts as trained.
PROBE_TEXTS = (
    "Write a headline for sparkling water. Fresh bubbles, no sugar: your afternoon, lighter.",
    "Write a product title for bath towels. Soft cotton bath towels, set of four, quick to dry.",
    "Write a call to action for running shoes. Find your size and run further today.",
    "Write a short description of roasted coffee. Whole beans, roasted slowly for a round taste.",
)

FLOOR = 0.01  # nats a token: below this an adapter does nothing that anybody could notice
CEILING = 0.02  # nats a token: what another engine's arithmetic may differ by
CEILING_SHARE = 0.10  # and a share of the adapter's own effect, which grows with it


@dataclass(frozen=True)
class Probe:
    """One text's log-probabilities (natural, per token after its first): from the server now, and recorded."""

    base: Logs  # the server's base model
    served: Logs  # the server under the adapter's name
    trained: Logs | None = None  # the trainer, with the adapter
    trained_base: Logs | None = None  # the trainer, without it


@dataclass(frozen=True)
class Proof:
    """What the probes showed; ``reasons`` is empty exactly when the adapter may serve."""

    acts: float  # mean absolute difference from the base, nats a token
    differs: float | None  # from the trainer's record; None where nothing was recorded
    base_differs: float | None
    ceiling: float | None
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        """The proof as it is kept with the version."""
        return {
            "passed": self.passed,
            "acts": self.acts,
            "floor": FLOOR,
            "differs": self.differs,
            "base_differs": self.base_differs,
            "ceiling": self.ceiling,
            "compared": self.differs is not None,
            "reasons": list(self.reasons),
        }


def judge(probes: Sequence[Probe]) -> Proof:
    """Prove that the weights under a name are the trained ones, and that they do something.

    Two distances, both means over all tokens of the absolute difference of log-probabilities. The
    server with the adapter against the server without it must lie above ``FLOOR``: a server that
    answers from the base under an adapter's name, and an adapter of zeros, lie at 0. The server
    against the trainer's record must lie below ``CEILING`` plus a share of the adapter's recorded
    effect: another base, another scaling or dropped modules lie above it.

    Raises:
        BadInput: no probes.
    """
    if not probes or not any(probe.served for probe in probes):
        raise BadInput("no probe texts: nothing can be proved")
    reasons: list[str] = []
    acts = _distance([(probe.served, probe.base) for probe in probes])
    if acts is None:
        return Proof(0.0, None, None, None, ("the server counted other tokens with the adapter than without",))
    if not acts >= FLOOR:  # NaN fails too
        reasons.append(f"it does nothing: {acts:.4f} nats a token from the base, at least {FLOOR} was expected")
    recorded = [probe for probe in probes if probe.trained is not None and probe.trained_base is not None]
    if not recorded:
        return Proof(acts, None, None, None, tuple(reasons))
    differs = _distance([(probe.served, probe.trained or ()) for probe in recorded])
    base_differs = _distance([(probe.base, probe.trained_base or ()) for probe in recorded])
    effect = _distance([(probe.trained or (), probe.trained_base or ()) for probe in recorded])
    if differs is None or base_differs is None or effect is None:
        reasons.append("the trainer counted other tokens for the same texts: another tokenizer or template")
        return Proof(acts, None, None, None, tuple(reasons))
    ceiling = CEILING + CEILING_SHARE * effect
    if not base_differs <= CEILING:
        reasons.append(
            f"it was trained on another base: that one lies {base_differs:.4f} nats a token away, {CEILING} is allowed"
        )
    if not differs <= ceiling:
        reasons.append(
            f"it does not act as it was trained: {differs:.4f} nats a token from the record, {ceiling:.4f} is allowed"
        )
    return Proof(acts, differs, base_differs, ceiling, tuple(reasons))


def _distance(pairs: Sequence[tuple[Logs, Logs]]) -> float | None:
    total, count = 0.0, 0
    for one, two in pairs:
        if len(one) != len(two):
            return None
        total += math.fsum(abs(a - b) for a, b in zip(one, two))
        count += len(one)
    return total / count if count else 0.0


def place(key: str, scope: str) -> float:
    """Where a campaign or person stands on [0, 1) for a scope: the same on every call, on every machine.

    A canary of share s serves those below s, so that one campaign never sees both versions in turn.
    """
    return int.from_bytes(hashlib.sha256(f"{scope}\n{key}".encode()).digest()[:8], "big") / 2**64


@dataclass(frozen=True)
class Evidence:
    """How the challenger does against the champion in blind pairs; may be looked at after every vote."""

    wins: int
    losses: int
    e_worse: float  # evidence (an e-value) against "not worse"
    e_better: float  # evidence against "not better"
    alpha: float

    @property
    def verdict(self) -> str:
        """worse, better or not_enough_evidence; wrong with probability at most alpha, however often one looks."""
        if self.e_worse >= 1 / self.alpha:
            return "worse"
        return "better" if self.e_better >= 1 / self.alpha else "not_enough_evidence"


def weigh(wins: int, losses: int, alpha: float = 0.05) -> Evidence:
    """An anytime-valid test of a win rate against one half.

    The likelihood of the votes, averaged over all rates below one half (uniformly), against their
    likelihood at one half, is a supermartingale as long as the rate is one half or more; by Ville's
    inequality it passes 1 / alpha with probability at most alpha at any time. The same above one
    half for "better". Ties carry no vote.

    Args:
        wins, losses: of the challenger, in blind pairs.
        alpha: chance of a wrong verdict over the whole run.

    Raises:
        BadInput: counts below 0, or alpha outside (0, 1).

    Source: Robbins (1970), mixture of likelihood ratios; Ville (1939).
    """
    if wins < 0 or losses < 0 or not 0 < alpha < 1:
        raise BadInput(f"wins {wins} and losses {losses} must not be negative, alpha {alpha} lies between 0 and 1")
    whole = betaln(wins + 1, losses + 1) + (wins + losses + 1) * math.log(2)
    below = beta.logcdf(0.5, wins + 1, losses + 1)
    above = beta.logsf(0.5, wins + 1, losses + 1)
    return Evidence(wins, losses, _exp(whole + below), _exp(whole + above), alpha)


def _exp(value: float) -> float:
    return math.exp(min(float(value), 700.0))
