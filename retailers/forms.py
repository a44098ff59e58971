"""What is typed about retailers and brands, checked."""

from __future__ import annotations

from typing import Any

from django import forms

from retailers.models import Webhook
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
