"""What people type on the agents' screens, checked."""

from __future__ import annotations

from datetime import date
from typing import Any

from django import forms

from agents.domain.briefs import LIMITS
from agents.domain.rooms import Template
from retailers.models import Brand, Retailer


class PlaygroundForm(forms.Form):
    """A brief for one headline, written by whom the brand's route says."""

    brand = forms.ModelChoiceField(Brand.objects.none(), to_field_name="slug", empty_label=None)
    retailer = forms.ModelChoiceField(
        Retailer.objects.none(), to_field_name="slug", required=False, empty_label="any retailer"
    )
    network = forms.ChoiceField(choices=[(name, name) for name in LIMITS], initial="instacart")
    product = forms.CharField(max_length=120, widget=forms.TextInput(attrs={"placeholder": "Sparkling water"}))
    size = forms.CharField(max_length=40, required=False)
    feature = forms.CharField(max_length=120, required=False)

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        brands = Brand.objects.for_user(user)
        self.fields["brand"].queryset = brands  # type: ignore[attr-defined]
        self.fields["retailer"].queryset = Retailer.objects.visible_to(user)  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Who works for one retailer alone asks for that one."""
        found = super().clean() or {}
        brand, retailer = found.get("brand"), found.get("retailer")
        allowed = [shop for owner, shop in Brand.objects.narrowed(self.user) if brand and owner == brand.pk]
        if allowed and (retailer is None or retailer.pk not in allowed):
            self.add_error("retailer", "You work for one retailer of this brand; choose it.")
        return found


class GoalForm(forms.Form):
    """What is to be reached, for which brand."""

    brand = forms.ModelChoiceField(Brand.objects.none(), to_field_name="slug", empty_label=None)
    retailer = forms.ModelChoiceField(
        Retailer.objects.none(), to_field_name="slug", required=False, empty_label="all retailers"
    )
    goal = forms.CharField(
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 2, "placeholder": "Plan next quarter's budget of 250,000 USD"}),
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["brand"].queryset = Brand.objects.for_user(user)  # type: ignore[attr-defined]
        self.fields["retailer"].queryset = Retailer.objects.visible_to(user)  # type: ignore[attr-defined]
        self.user = user

    def clean(self) -> dict[str, Any]:
        """Who works for one retailer alone plans for that one."""
        found = super().clean() or {}
        brand, retailer = found.get("brand"), found.get("retailer")
        allowed = [shop for owner, shop in Brand.objects.narrowed(self.user) if brand and owner == brand.pk]
        if allowed and (retailer is None or retailer.pk not in allowed):
            self.add_error("retailer", "You work for one retailer of this brand; choose it.")
        return found


class PlanChangeForm(forms.Form):
    """Another budget, or other amounts for single arms; what stays empty stays as it is."""

    total_budget = forms.DecimalField(min_value=0, max_digits=15, decimal_places=2, label="Budget")
    note = forms.CharField(max_length=1000, required=False, label="Why")

    def __init__(self, *args: Any, plan: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = plan
        self.fields["total_budget"].initial = plan.total_budget
        for place, row in enumerate(sorted(plan.allocations, key=lambda row: -row["spend"])[:40]):
            self.fields[f"arm_{place}"] = forms.DecimalField(
                min_value=0, max_digits=15, decimal_places=2, required=False, label=row["id"],
                widget=forms.NumberInput(attrs={"placeholder": f"{row['spend']:.2f}"}),
            )  # fmt: skip

    def changes(self) -> dict[str, Any]:
        told = self.cleaned_data
        limits = {
            self.fields[name].label: {"fixed": float(value)}
            for name, value in told.items()
            if name.startswith("arm_") and value is not None
        }
        total = float(told["total_budget"])
        same = total == float(self.plan.total_budget)
        return {**({} if same else {"total_budget": total}), **({"limits": limits} if limits else {})}


class ExperimentChangeForm(forms.Form):
    """Another length, or fewer or more stores."""

    duration = forms.IntegerField(
        min_value=1, max_value=200, label="Periods that it runs", help_text="Weeks, where stores report by week"
    )
    most_units = forms.IntegerField(min_value=1, max_value=200, label="Stores treated at most")
    note = forms.CharField(max_length=1000, required=False, label="Why")


class QuestionForm(forms.Form):
    """The values of a reviewed question, each of its kind."""

    def __init__(self, *args: Any, asked: Template, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, kind in asked.parameters.items():
            field: forms.Field = forms.CharField(max_length=80)
            if isinstance(kind, list):
                field = forms.TypedChoiceField(
                    choices=[(str(one), str(one)) for one in kind], coerce={str(one): one for one in kind}.get
                )
            elif kind == "date":
                field = forms.DateField(widget=forms.DateInput(attrs={"type": "date"}))
            elif kind == "integer":
                field = forms.IntegerField()
            elif kind == "number":
                field = forms.FloatField()
            field.label = name.replace("_", " ").capitalize()
            self.fields[name] = field

    def values(self) -> dict[str, Any]:
        """As the question takes them: dates as text."""
        return {
            name: value.isoformat() if isinstance(value, date) else value for name, value in self.cleaned_data.items()
        }
