"""Who asks by a token: read once for a request, by the middleware and the API alike."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from rest_framework_simplejwt import state
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenBackendExpiredToken
from rest_framework_simplejwt.settings import api_settings


class Bearer(JWTAuthentication):
    """The token's person as the middleware found them (rmn.lib.http): their memberships are asked for once."""

    def authenticate(self, request: Any) -> Any:
        return getattr(request, "bearer", None) or super().authenticate(request)

    def get_user(self, validated_token: Any) -> Any:
        """The token's person and their memberships in one look; whoever has none, or may not enter, as ever."""
        key = validated_token.get(api_settings.USER_ID_CLAIM)
        person = apps.get_model("retailers", "Brand").objects.person_with_memberships(key)
        return person if person is not None and person.is_active else super().get_user(validated_token)


class Keys(TokenBackend):
    """Signs under the newest key, and knows the signatures of those before it."""

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        try:
            return super().decode(token, verify)
        except TokenBackendExpiredToken:
            raise
        except TokenBackendError:
            for key in settings.SECRET_KEY_FALLBACKS:
                try:
                    return TokenBackend(self.algorithm, key).decode(token, verify)
                except TokenBackendExpiredToken:
                    raise
                except TokenBackendError:
                    continue
            raise


def know_keys_before() -> None:
    state.token_backend = Keys(state.token_backend.algorithm, state.token_backend.signing_key)
