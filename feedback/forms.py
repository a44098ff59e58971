"""What people type on the review and export screens, checked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms

from campaigns.models import Recommendation, Task
from feedback import services
from feedback.answers import Filters
from feedback.domain.formats import FORMATS
from feedback.models import Feedback, ReviewTask
from retailers.models import Brand, Retailer

# The buttons of each kind of question: value of the button -> what it says of the drafts as shown.
PAIR = {
    "first!": ("first", 2),
    "first": ("first", 1),
    "tie": ("tie", 1),
    "second": ("second", 1),
    "second!": ("second", 2),
    "both_bad": ("both_bad", 1),
}
THUMB = {"up": 1, "down": -1}
PERIODS = (("7", "Last 7 days"), ("30", "Last 30 days"), ("90", "Last 90 days"))
MOST_ADAPTERS = 100  # to choose from
FORMAT_WORDS = {
    "trl": "Preference pairs for TRL (DPO)",
    "trl-unpaired": "Good and bad texts for TRL (KTO)",
    "sharegpt": "Preference pairs for LLaMA-Factory (ShareGPT)",
    "openai-preference": "Preference pairs for OpenAI",
    "csv": "All answers for a spreadsheet (CSV)",
    "parquet": "All answers as a table (Parquet)",
}
TOO_LONG = "This is %(show_value)d characters long; at most %(limit_value)d are taken. Shorten it, it is still here."


class AnswerForm(forms.Form):
    """An answer to the question as it was shown."""

    answer = forms.CharField(max_length=12, error_messages={"required": "Choose one of the answers."})
    text = forms.CharField(
        required=False, strip=False, max_length=services.MOST_CHARACTERS, error_messages={"max_length": TOO_LONG}
    )
    note = forms.CharField(required=False, max_length=2000, error_messages={"max_length": TOO_LONG})

    def __init__(self, data: Any, *, question: ReviewTask, first: str) -> None:
        super().__init__(data)
        self.question, self.first = question, first
        self.reasons = [str(reason)[:40] for reason in data.getlist("reasons")][:20] if data else []

    def clean_answer(self) -> str:
        said: str = self.cleaned_data["answer"]
        allowed = PAIR if self.question.other_id else {*THUMB, *"12345", "correct"}
        if said not in allowed:
            raise forms.ValidationError("Choose one of the answers.")
        return said

    def said(self) -> dict[str, Any]:
        """The answer as the service takes it, in terms of A and B whichever stood first."""
        said = self.cleaned_data["answer"]
        common = {"reasons": self.reasons, "note": self.cleaned_data["note"], "shown_first": self.first}
        if self.question.other_id:
            place, strength = PAIR[said]
            turned = {"first": self.first, "second": "b" if self.first == "a" else "a"}
            return {**common, "outcome": turned.get(place, place), "strength": strength}
        if said in THUMB:
            return {**common, "kind": Feedback.Kind.THUMB, "value": THUMB[said]}
        if said == "correct":
            return {**common, "kind": Feedback.Kind.CORRECTION, "text": self.cleaned_data["text"]}
        return {**common, "kind": Feedback.Kind.RATING, "value": int(said)}


class LeaveForm(forms.Form):
    """What a page says when it is left."""

    until = forms.DateTimeField(required=False)  # it held its question until then; left out: whatever the hour


class FiltersForm(forms.Form):
    """Which answers the figures are about; everything stands in the address."""

    brand = forms.ModelChoiceField(
        Brand.objects.none(), required=False, to_field_name="slug", empty_label="All of yours"
    )
    retailer = forms.ModelChoiceField(Retailer.objects.none(), required=False, to_field_name="slug", empty_label="All")
    task = forms.ChoiceField(choices=[("", "All"), *Task.choices], required=False)
    period = forms.ChoiceField(choices=[("", "Any time"), *PERIODS], required=False)
    adapter = forms.ChoiceField(required=False)

    def __init__(self, data: Any = None, *, user: Any, initial: Any = None) -> None:
        super().__init__(data, initial=initial)
        self.fields["brand"].queryset = Brand.objects.for_user(user).order_by("name")  # type: ignore[attr-defined]
        self.fields["retailer"].queryset = Retailer.objects.visible_to(user).order_by("name")  # type: ignore[attr-defined]
        wrote = Recommendation.objects.visible_to(user).exclude(adapter_digest="")
        digests = wrote.order_by().values_list("adapter_digest", flat=True).distinct()[:MOST_ADAPTERS]
        self.fields["adapter"].choices = [("", "All"), *((digest, digest[:12]) for digest in sorted(digests))]  # type: ignore[attr-defined]

    def filters(self, now: datetime, **more: Any) -> Filters:
        """Of what was typed right; the rest is left out."""
        found = self.cleaned_data
        days = int(found.get("period") or 0)
        today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        retailer = found.get("retailer")
        return Filters(
            task=found.get("task") or "",
            retailer=retailer.slug if retailer else "",
            adapter=found.get("adapter") or "",
            since=today - timedelta(days=days) if days else None,
            **more,
        )


class ExportForm(FiltersForm):
    """Which answers, and in what format."""

    field_order = ("brand", "format", "task", "retailer", "period", "adapter", "min_agreement")
    brand = forms.ModelChoiceField(Brand.objects.none(), to_field_name="slug", empty_label=None)
    format = forms.ChoiceField(choices=[(name, FORMAT_WORDS[name]) for name in FORMATS])
    min_agreement = forms.FloatField(
        required=False,
        min_value=0,
        max_value=1,
        label="Least agreement",
        help_text="0 to 1: the share of at least two people who said the same. Empty takes all.",
    )

    def wish(self, now: datetime) -> dict[str, Any]:
        found = self.cleaned_data
        filters = self.filters(now, min_agreement=found["min_agreement"] or 0.0)
        return {"brand": found["brand"], "format": found["format"], "filters": filters}
