"""Why an answer: the reasons that the screens offer."""

from __future__ import annotations

REASONS = {  # why an answer, in the trade's words
    "creative": ["off brand", "not true", "too long", "dull", "wrong product", "breaks a rule"],
    "budgeting": ["too risky", "ignores stock", "ignores an agreement", "not enough on search", "numbers look wrong"],
    "measurement": ["too long", "wrong stores", "too costly", "will not convince"],
    "planning": ["wrong order", "step missing", "too costly", "not now"],
}
CORRECTED = ["fact", "tone", "claim", "length", "compliance"]  # what a correction is about
LISTED = frozenset({*CORRECTED, *(reason for group in REASONS.values() for reason in group)})
