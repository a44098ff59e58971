"""Who asks by a token: read once for a request, by the middleware and the API alike."""

from __future__ import annotations

from typing import Any

from rest_framework_simplejwt.authentication import JWTAuthentication


class Bearer(JWTAuthentication):
    """The token's person as the middleware found them (rmn.lib.http): their memberships are asked for once."""

    def authenticate(self, request: Any) -> Any:
        return getattr(request, "bearer", None) or super().authenticate(request)
