"""What is typed about retailers and brands, checked."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django import forms

from retailers import services
from retailers.domain import bench, catalogue
from retailers.domain import mapping as mappings
from retailers.models import Brand, FeedMapping, PolicyRule, Retailer, Webhook
from rmn.lib import outbound
from rmn.lib.errors import RmnError


class WebhookForm(forms.ModelForm):
    """Where to tell a brand what happens."""

    class Meta:
        model = Webhook
        fields = ["brand", "url", "events", "is_active"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["events"].help_text = 'A list of names, as ["plan_approved", "run_failed"]; empty for all.'

    def clean_url(self) -> str:
        try:
            outbound.check(self.cleaned_data["url"])
        except RmnError as error:
            raise forms.ValidationError(str(error)) from None
        return str(self.cleaned_data["url"])

    def clean_events(self) -> list[str]:
        return event_names(self.cleaned_data["events"])


def event_names(value: Any) -> list[str]:
    """A list of event names.

    Raises:
        ValidationError: it is something else.
    """
    if not isinstance(value or [], list) or not all(isinstance(one, str) and 0 < len(one) <= 80 for one in value or []):
        raise forms.ValidationError("A list of event names was expected; an empty one means all.")
    return list(value or [])


RULE_FIELDS = (
    "brand", "code", "network", "severity", "kind", "spec", "message", "fix", "source", "owner", "valid_from", "valid_to", "is_active",
)  # fmt: skip


class PolicyRuleForm(forms.ModelForm):
    """A rule, tried on labelled texts first: what was tried is saved when it is sent a second time unchanged."""

    tried = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = PolicyRule
        fields = RULE_FIELDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trial: bench.Trial | None = None
        row = self.instance
        self.versions = (
            list(PolicyRule.objects.filter(scope=row.scope, code=row.code).order_by("-version")) if row.pk else []
        )

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if self.errors or not set(self.changed_data) - {"tried"}:
            return
        rule = self.instance
        facts = [str(rule.brand_id), *(str(getattr(rule, name)) for name in RULE_FIELDS[1:] if name != "spec")]
        wish = hashlib.sha256(json.dumps([facts, rule.spec], sort_keys=True).encode()).hexdigest()
        if self.cleaned_data.get("tried") == wish:
            return
        self.trial = services.try_rule(rule)
        self.data = {**self.data.dict(), self.add_prefix("tried"): wish}  # type: ignore[attr-defined]
        self.add_error(None, "Nothing is saved yet. See above what this would change, then save again to confirm.")


DRAFT = "draft"


class FeedForm(forms.Form):
    """A report, or a file of products, to look at and then to load."""

    brand = forms.ModelChoiceField(Brand.objects.none())
    retailer = forms.ModelChoiceField(Retailer.objects.none())
    mapping = forms.ChoiceField(help_text="How this report is read. Nobody has mapped it yet? Have one drafted.")
    file = forms.FileField(help_text="CSV, TSV, JSON, XLSX or Parquet; gzip and zip too")
    as_of = forms.DateTimeField(
        required=False, label="Numbers taken at", help_text="Newer restates older; empty: what the file says, else now"
    )
    start = forms.DateField(required=False, label="First day", help_text="Only for reports that carry no date")
    end = forms.DateField(required=False, label="Last day")
    repair = forms.BooleanField(
        required=False,
        label="Bring back lost zeros and check digits",
        help_text="Only for product catalogues; each number that is repaired is listed and marked",
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        brands: Any = self.fields["brand"]
        brands.queryset = Brand.objects.for_user(user)
        brands.to_field_name = "uuid"
        retailers: Any = self.fields["retailer"]
        retailers.queryset = Retailer.objects.visible_to(user)
        retailers.to_field_name = "uuid"
        own = FeedMapping.objects.visible_to(user).current().order_by("network", "report")
        mapping: Any = self.fields["mapping"]
        mapping.choices = [
            (DRAFT, "Draft one for me"),
            (catalogue.NAME, "Product catalogue: SKUs and the numbers they go by"),
            ("Yours", [(str(row.uuid), f"{row} ({row.brand})") for row in own.select_related("brand")]),
            ("Shipped", [(name, name) for name in sorted(mappings.shipped_names())]),
        ]
        for name in ("start", "end"):
            self.fields[name].widget = forms.DateInput(attrs={"type": "date"})

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        start, end = found.get("start"), found.get("end")
        if (start is None) != (end is None) or (start and end and end < start):
            self.add_error("end", "Give both days, the last not before the first.")
        return found
