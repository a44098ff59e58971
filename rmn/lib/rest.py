"""What every endpoint shares: rows a person may see, references by address, roles that may change."""

from __future__ import annotations

import uuid
from copy import copy, deepcopy
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, models, transaction
from django.http import Http404
from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import mixins, permissions, serializers, viewsets
from rest_framework.response import Response
from rest_framework.views import APIView


class BearerScheme(SimpleJWTScheme):  # type: ignore[no-untyped-call]  # the extension registers itself
    """Says in the schema that a token is taken."""

    target_class = "rmn.lib.bearer.Bearer"


class MayChange(permissions.BasePermission):
    """Any member reads; the roles in the view's ``change_roles`` change. Ops may do all."""

    def has_permission(self, request: Any, view: Any) -> bool:
        if not request.user or not request.user.is_authenticated:
            return False
        if request.method in permissions.SAFE_METHODS:
            return True
        wanted = getattr(view, "change_roles", set()) | {"ops"}
        held: set[str] = apps.get_model("retailers", "Brand").objects.roles_of(request.user)
        return bool(held & wanted)


@extend_schema_field(OpenApiTypes.STR)
class Reference(serializers.RelatedField):
    """Another row by its address: a slug for brands and retailers (a UUID is taken too), else a UUID.

    Only rows the asking person may see can be named; another brand's row is as unknown as none.
    """

    default_error_messages = {"unknown": "There is no {name} '{value}' that you may see."}

    def to_representation(self, value: Any) -> str:
        return str(getattr(value, "slug", None) or value.uuid)

    def to_internal_value(self, data: Any) -> Any:
        queryset: Any = self.get_queryset()
        request = self.context.get("request")
        if request is not None and hasattr(queryset, "visible_to"):
            queryset = queryset.visible_to(request.user)
        row = queryset.filter(address(queryset.model, data)).first()
        if row is None:
            self.fail("unknown", name=queryset.model._meta.verbose_name, value=str(data)[:80])
        return row

    def use_pk_only_optimization(self) -> bool:
        return False

    def get_choices(self, cutoff: Any = None) -> dict[Any, Any]:  # noqa: ARG002
        return {}


def address(model: type[models.Model], value: Any) -> models.Q:
    """The look-up of a row by what a client calls it; nothing matches a malformed one."""
    names = {field.name for field in model._meta.get_fields()}
    try:
        key = uuid.UUID(str(value))
    except ValueError:
        return models.Q(slug=str(value)) if "slug" in names else models.Q(pk__in=[])
    return models.Q(uuid=key) if "uuid" in names else models.Q(pk=key)


ADDRESSES = ("slug", "uuid", "username")  # what Reference and its like show of a related row, the first it has
SHOWN = "address_of_"


def by_address(rows: models.QuerySet[Any], *relations: str) -> models.QuerySet[Any]:
    """The rows, and of their relations no more than their addresses: lists show nothing else of them."""
    shown = {}
    for relation in relations:
        related: Any = rows.model._meta.get_field(relation).related_model
        known = [field.name for field in related._meta.concrete_fields]
        address = next((name for name in ADDRESSES if name in known), "pk")
        shown[SHOWN + relation] = models.F(f"{relation}__{address}")
    return rows.select_related(None).annotate(**shown)


_FIELDS: dict[type, dict[str, Any]] = {}
_PLANS: dict[type, list[tuple[str, str, str, Any]]] = {}
ASK_MORE = (serializers.BaseSerializer, serializers.SerializerMethodField)  # of the serializer they stand in
HOLDERS = ("child", "child_relation", "_declared_fields")  # what fields hold other fields in


class RowSerializer(serializers.ModelSerializer):
    """A row with its UUID as ``id`` and its relations by address."""

    id = serializers.UUIDField(source="uuid", read_only=True)
    serializer_related_field = Reference

    @classmethod
    def _plan(cls) -> list[tuple[str, str, str, Any]]:
        """Each field that is shown; the model's own column it is read from, or the address that a list brought along;
        and what writes it, where that asks for nothing but the value."""
        if cls not in _PLANS:
            model: Any = cls.Meta.model
            own = {field.attname for field in model._meta.concrete_fields if not field.is_relation}
            shown: Any = cls()._readable_fields
            _PLANS[cls] = [
                (
                    field.field_name,
                    field.source if field.source in own else "",
                    f"{SHOWN}{field.source}" if isinstance(field, Reference | serializers.SlugRelatedField) else "",
                    None if isinstance(field, ASK_MORE) else field,
                )
                for field in shown
            ]
        return _PLANS[cls]

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """As the base class does it, less what it asks anew for every row of a list."""
        if not isinstance(instance, self.Meta.model):
            return super().to_representation(instance)
        found: dict[str, Any] = {}
        there = vars(instance)
        for name, column, address, writer in self._plan():
            if address in there:
                found[name] = None if there[address] is None else str(there[address])
                continue
            field: Any = writer or self.fields[name]
            try:
                value = getattr(instance, column) if column else field.get_attribute(instance)
            except serializers.SkipField:
                continue
            found[name] = None if value is None else field.to_representation(value)
        return found

    def get_fields(self) -> dict[str, Any]:
        """Worked out once for each class and handed out as copies: what a copy is bound to is its own."""
        if type(self) not in _FIELDS:
            _FIELDS[type(self)] = super().get_fields()
        holds = {name: any(hasattr(field, at) for at in HOLDERS) for name, field in _FIELDS[type(self)].items()}
        return {name: deepcopy(field) if holds[name] else copy(field) for name, field in _FIELDS[type(self)].items()}

    def build_relational_field(self, field_name: str, relation_info: Any) -> Any:
        cls, kwargs = super().build_relational_field(field_name, relation_info)
        if cls is Reference:
            kwargs.pop("view_name", None)
            if relation_info.related_model._meta.label == "auth.User":
                nullable = bool(relation_info.model_field is not None and relation_info.model_field.null)
                return serializers.SlugRelatedField, {
                    "slug_field": "username",
                    "read_only": True,
                    "allow_null": nullable,
                }
        return cls, kwargs


RUN_FIELDS = [
    "id",
    "brand",
    "status",
    "progress",
    "step",
    "error",
    "attempts",
    "created_at",
    "started_at",
    "finished_at",
]


def all_or_nothing() -> Any:
    """A block that is undone whole when it fails; no savepoint where ``Door`` has set one around the request."""
    return transaction.atomic(savepoint=not connections[DEFAULT_DB_ALIAS].settings_dict["ATOMIC_REQUESTS"])


class Door(APIView):
    """Base of all endpoints: what changes something is undone whole when it fails.

    Where each request is a transaction (rmn.lib.http), one that only reads needs no savepoint within it.
    """

    @classmethod
    def as_view(cls, *args: Any, **kwargs: Any) -> Any:
        return transaction.non_atomic_requests(super().as_view(*args, **kwargs))

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        connection = connections[DEFAULT_DB_ALIAS]
        if not connection.settings_dict["ATOMIC_REQUESTS"]:
            return super().dispatch(request, *args, **kwargs)
        if request.method not in permissions.SAFE_METHODS:
            with transaction.atomic():
                return super().dispatch(request, *args, **kwargs)
        try:
            return super().dispatch(request, *args, **kwargs)
        except DatabaseError:
            if not connection.savepoint_ids:  # ours is the only transaction: what is asked now is asked outside it,
                connection.connection.rollback()  # and without its scope, to which no brand's rows are shown
            raise


class Rows(Door, viewsets.GenericViewSet):
    """Base of all resources: rows the person may see, found by UUID, filtered by allowlist."""

    permission_classes = [MayChange]
    change_roles: set[str] = set()
    filterset_fields: list[str] = []
    lookup_url_kwarg = "id"
    lookup_value_regex = "[^/]+"

    def get_queryset(self) -> Any:
        queryset: Any = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return queryset.none()
        rows = queryset.visible_to(self.request.user)
        joined = rows.query.select_related
        return by_address(rows, *joined) if self.action == "list" and isinstance(joined, dict) else rows

    def get_object(self) -> Any:
        queryset = self.filter_queryset(self.get_queryset())
        row = queryset.filter(address(queryset.model, self.kwargs["id"])).first()
        if row is None:
            raise Http404
        self.check_object_permissions(self.request, row)
        return row

    def accepted(self, run: Any) -> Response:
        """Long work answers 202 with its run."""
        return Response(
            {"id": str(run.pk), "kind": run.kind, "status": run.status, "url": f"/api/v1/runs/{run.pk}/"},
            status=202,
            headers={"Location": f"/api/v1/runs/{run.pk}/"},
        )


class ReadOnlyRows(mixins.ListModelMixin, mixins.RetrieveModelMixin, Rows):
    """Lists and shows; changes go through named actions or elsewhere."""


class WritableRows(mixins.CreateModelMixin, mixins.UpdateModelMixin, ReadOnlyRows):
    """Lists, shows, creates and changes; nothing is deleted here."""

    http_method_names = ["get", "post", "patch", "head", "options"]
