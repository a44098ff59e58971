"""What people type on the agents' screens, checked."""

from __future__ import annotations

from typing import Any

from django import forms

from agents.domain.briefs import LIMITS
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
