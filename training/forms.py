"""What people type on the training screens, checked."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import User
from unfold.forms import BaseDialogForm

from agents import serving
from agents.models import Adapter
from retailers.models import Brand, Retailer
from rmn.lib.errors import BadInput
from training.lora.compose import METHODS
from training.suites import SUITES


class LessonForm(forms.Form):
    """Whose answers are to be learnt from."""

    brand = forms.ModelChoiceField(Brand.objects.none(), to_field_name="slug", empty_label=None)
    retailer = forms.ModelChoiceField(
        Retailer.objects.none(), to_field_name="slug", required=False, empty_label="all retailers"
    )
    task = forms.ChoiceField(choices=[(name, name) for name in SUITES if name])

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.fields["brand"].queryset = Brand.objects.for_user(user)  # type: ignore[attr-defined]
        self.fields["retailer"].queryset = Retailer.objects.visible_to(user)  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Who works for one retailer alone trains for that one."""
        found = super().clean() or {}
        brand, retailer = found.get("brand"), found.get("retailer")
        mine = [shop for owner, shop in Brand.objects.narrowed(self.user) if brand and owner == brand.pk]
        if mine and (retailer is None or retailer.pk not in mine):
            self.add_error("retailer", "You work for one retailer of this brand; choose it.")
        return found


class RetailerForm(BaseDialogForm):
    """Whose reports are to be read better."""

    retailer = forms.ModelChoiceField(Retailer.objects.order_by("name"))


class CompositionForm(BaseDialogForm):
    """Which versions are added, with what weights."""

    brand = forms.ModelChoiceField(Brand.objects.order_by("name"))
    parts = forms.CharField(
        help_text="versions with weights, as 3f9a1c:0.5 77ab02:0.3; of the brand or shared by all", max_length=600
    )
    method = forms.ChoiceField(choices=[(name, name) for name in METHODS], help_text="cat is exact")
    search = forms.BooleanField(required=False, help_text="search the weights on half of the unseen cases")

    def clean_parts(self) -> list[tuple[Adapter, float]]:
        found = []
        for text in self.cleaned_data["parts"].split():
            name, _, weight = text.rpartition(":")
            try:
                found.append((serving.find(name), float(weight)))
            except ValueError:
                raise forms.ValidationError(f"{text}: a version, a colon and a number were expected") from None
            except BadInput as error:
                raise forms.ValidationError(str(error)) from None
        return found


class WithdrawalForm(forms.Form):
    """Whose answers leave all training."""

    brand = forms.ModelChoiceField(
        Brand.objects.none(), to_field_name="slug", required=False, empty_label="of all brands"
    )
    person = forms.CharField(
        max_length=150, required=False, help_text="user name; empty for all answers of the brand, whoever gave them"
    )
    reason = forms.CharField(max_length=400, help_text="kept in the audit chain")

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["brand"].queryset = Brand.objects.for_user(user)  # type: ignore[attr-defined]

    def clean_person(self) -> Any:
        name = self.cleaned_data["person"].strip()
        if not name:
            return None
        found = User.objects.filter(username=name).first()
        if found is None:
            raise forms.ValidationError("There is nobody of that name.")
        return found

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        if "person" in found and not found.get("person") and not found.get("brand"):
            raise forms.ValidationError("Name a person, a brand, or both.")
        return found
