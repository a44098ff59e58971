"""The router: which resources stand under /api/v1/.

Each app's ``api.resources`` maps an address to its viewset; ``api.paths`` are single endpoints.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404
from django.urls import include, path
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_serializer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.throttling import AnonRateThrottle
from rest_framework_simplejwt.views import TokenBlacklistView, TokenRefreshView

from agents import api as agents
from campaigns import api as campaigns
from feedback import api as feedback
from retailers import api as retailers
from rmn.lib import runs
from rmn.logins import Tokens
from training import api as training

APPS = (retailers, campaigns, feedback, agents, training)


class LoginThrottle(AnonRateThrottle):
    scope = "login"


class RunSerializer(serializers.Serializer):
    """Any long work, whatever its kind."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    status = serializers.CharField()
    progress = serializers.FloatField()
    step = serializers.CharField()
    error = serializers.CharField()
    error_id = serializers.CharField()
    retryable = serializers.BooleanField()
    attempts = serializers.IntegerField()
    brand = serializers.SerializerMethodField()
    log = serializers.CharField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)

    def get_brand(self, run: Any) -> str | None:
        return run.brand.slug if run.brand_id else None


@extend_schema_serializer(many=False)
class RunPage(serializers.Serializer):
    """The newest runs of all kinds, on one page."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = RunSerializer(many=True)


@extend_schema(parameters=[OpenApiParameter("id", UUID, OpenApiParameter.PATH)])
class Runs(viewsets.ViewSet):
    """Long work of every kind: look, cancel, retry."""

    permission_classes = [IsAuthenticated]
    lookup_url_kwarg = "id"
    serializer_class = RunSerializer

    @extend_schema(responses=RunPage)
    def list(self, request: Request) -> Response:
        newest: list[Any] = []
        for model in runs.kinds():
            if model.is_errand:
                continue
            newest += model.objects.visible_to(request.user).select_related("brand")[:50]
        newest.sort(key=lambda run: run.created_at, reverse=True)
        return Response({"next": None, "previous": None, "results": RunSerializer(newest[:50], many=True).data})

    @extend_schema(responses=RunSerializer)
    def retrieve(self, request: Request, id: str) -> Response:  # noqa: A002
        return Response(RunSerializer(self._find(request, id)).data)

    @extend_schema(request=None, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, id: str) -> Response:  # noqa: A002
        run = self._find(request, id)
        run.request_cancel()
        return Response(RunSerializer(run).data)

    @extend_schema(request=None, responses={202: RunSerializer, 404: OpenApiResponse(description="No such run")})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, id: str) -> Response:  # noqa: A002
        run = self._find(request, id)
        run.retry()
        return Response(RunSerializer(run).data, status=202)

    def _find(self, request: Request, run_id: str) -> runs.Run:
        run = runs.find(run_id, request.user)
        if run is None:
            raise Http404
        return run


def resource(address: str, viewset: Any) -> Any:
    """All addresses below one, found by it first."""
    router = SimpleRouter()
    router.register("", viewset, basename=address)
    return path(f"{address}/", include(router.urls))


v1 = [
    path("token/", Tokens.as_view(throttle_classes=[LoginThrottle]), name="token"),
    path("token/refresh/", TokenRefreshView.as_view(throttle_classes=[LoginThrottle]), name="token-refresh"),
    path("token/blacklist/", TokenBlacklistView.as_view(throttle_classes=[LoginThrottle]), name="token-blacklist"),
    *(single for app in APPS for single in app.paths),
    *(resource(address, viewset) for app in APPS for address, viewset in app.resources.items()),
    resource("runs", Runs),
]
urlpatterns = [
    path("v1/", include(v1)),
    path("schema/", SpectacularAPIView.as_view(permission_classes=[IsAuthenticated]), name="schema"),
    path("docs/", SpectacularSwaggerSplitView.as_view(permission_classes=[IsAuthenticated]), name="api-docs"),
]
