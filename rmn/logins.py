"""Logins in the installation's audit chain: who came in, by which door, and who was locked out."""

from __future__ import annotations

from typing import Any

from axes.signals import user_locked_out
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import pre_save
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.views import TokenObtainPairView

from retailers import audit
from rmn.lib import tenancy


def watch() -> None:
    pre_save.connect(_forget_token, sender=OutstandingToken, dispatch_uid="rmn_tokens")
    user_logged_in.connect(_came_in, dispatch_uid="rmn_logins")
    user_locked_out.connect(_locked_out, dispatch_uid="rmn_lockouts")


def _forget_token(instance: OutstandingToken, **_: Any) -> None:
    """A refresh token is known by its id; its text would open the door to whoever reads the table."""
    instance.token = ""


def _came_in(request: Any, user: Any, **_: Any) -> None:
    if request is not None and request.META.get("REMOTE_ADDR"):  # a person before a browser, not a program's own
        record(request, user.get_username(), "logged in")


def _locked_out(request: Any, username: str, ip_address: str, **_: Any) -> None:  # noqa: ARG001
    record(request, str(username)[:150], "locked out")


def record(request: Any, actor: str, action: str) -> None:
    with tenancy.everyone():
        audit.record(brand=None, actor=actor, action=action, payload={"from": request.META.get("REMOTE_ADDR", "")})


class Tokens(TokenObtainPairView):
    """A pair of tokens for a name and a password."""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        answer = super().post(request, *args, **kwargs)
        said: Any = request.data
        record(request, str(said.get("username", ""))[:150], "token taken")
        return answer
