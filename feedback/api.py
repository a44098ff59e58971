"""What integrations may ask of feedback, under /api/v1/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.http import FileResponse, Http404, StreamingHttpResponse
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns.models import Recommendation, Task
from feedback import answers, figures, services
from feedback.answers import Filters, Redaction
from feedback.domain import formats
from feedback.models import Export, Feedback, ReviewTask
from retailers.models import Brand
from rmn.lib.errors import BadInput
from rmn.lib.problems import Problem
from rmn.lib.rest import RUN_FIELDS, Door, MayChange, ReadOnlyRows, Reference, RowSerializer, all_or_nothing

PEOPLE = {"marketer", "analyst", "integration"}
MOST_AT_ONCE = 1000
THUMBS = {"true": 1, "up": 1, "1": 1, "false": -1, "down": -1, "-1": -1}


class FeedbackSerializer(RowSerializer):
    class Meta:
        model = Feedback
        fields = [
            "id",
            "brand",
            "retailer",
            "task",
            "kind",
            "origin",
            "recommendation",
            "other",
            "value",
            "outcome",
            "strength",
            "prompt",
            "chosen",
            "rejected",
            "text",
            "reasons",
            "note",
            "by",
            "shown_first",
            "seconds",
            "adapter_digest",
            "other_adapter_digest",
            "prompt_version",
            "undone_at",
            "created_at",
        ]


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "boolean"}, {"type": "string"}]})
class ValueField(serializers.Field):
    """1 or -1 (true, false, up, down) of a thumb; 1 to 5 of a rating; the outcome of a pair."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, bool | int | float | str):
            raise serializers.ValidationError("a number, true, false, or an outcome was expected")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class Wish(serializers.Serializer):
    """One answer about one recommendation, or about two."""

    recommendation = Reference(queryset=Recommendation.objects.select_related("brand", "retailer"))
    kind = serializers.ChoiceField(choices=Feedback.Kind.choices)
    value = ValueField(required=False, allow_null=True)
    text = serializers.CharField(
        required=False, allow_blank=True, trim_whitespace=False, max_length=services.MOST_CHARACTERS
    )
    reasons = serializers.ListField(child=serializers.CharField(max_length=40), required=False, max_length=20)
    note = serializers.CharField(required=False, allow_blank=True, max_length=services.MOST_CHARACTERS)
    other = Reference(queryset=Recommendation.objects.select_related("brand", "retailer"), required=False)
    outcome = serializers.ChoiceField(choices=Feedback.Outcome.choices, required=False)
    strength = serializers.IntegerField(min_value=1, max_value=2, default=1)
    seconds = serializers.FloatField(min_value=0, max_value=86_400, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        kind, value = attrs["kind"], attrs.pop("value", None)
        try:
            if kind == Feedback.Kind.THUMB:
                attrs["value"] = THUMBS[str(value).strip().lower()]
            elif kind == Feedback.Kind.RATING:
                attrs["value"] = _stars(value)
            elif kind == Feedback.Kind.PAIR and value is not None:
                attrs.setdefault("outcome", str(value))
        except (KeyError, TypeError, ValueError):
            wanted = "1 (up) or -1 (down)" if kind == Feedback.Kind.THUMB else "a whole number from 1 to 5"
            raise serializers.ValidationError({"value": f"{value!r}: {wanted} was expected"}) from None
        return attrs


def _stars(value: Any) -> int:
    number = float(value)
    if isinstance(value, bool) or number != int(number) or not 1 <= number <= 5:
        raise ValueError
    return int(number)


class PairWish(serializers.Serializer):
    """The better of two recommendations, or of two texts of your own."""

    a = Reference(queryset=Recommendation.objects.select_related("brand", "retailer"), required=False)
    b = Reference(queryset=Recommendation.objects.select_related("brand", "retailer"), required=False)
    outcome = serializers.ChoiceField(choices=Feedback.Outcome.choices, required=False)
    strength = serializers.IntegerField(min_value=1, max_value=2, default=1)
    prompt = serializers.CharField(required=False, max_length=services.MOST_CHARACTERS)
    chosen = serializers.CharField(required=False, max_length=services.MOST_CHARACTERS)
    rejected = serializers.CharField(required=False, max_length=services.MOST_CHARACTERS)
    brand = Reference(queryset=Brand.objects.all(), required=False)
    task = serializers.ChoiceField(choices=Task.choices, default=Task.CREATIVE)
    note = serializers.CharField(required=False, allow_blank=True, max_length=services.MOST_CHARACTERS)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        ours, raw = ("a", "b", "outcome"), ("prompt", "chosen", "rejected")
        given = [name for name in (*ours, *raw) if name in attrs]
        wanted = raw if set(given) & set(raw) else ours
        missing = {name: "needed" for name in wanted if name not in attrs}
        if set(given) & set(raw) and set(given) & set(ours):
            raise serializers.ValidationError("Give a, b and outcome, or prompt, chosen and rejected, not both.")
        if missing:
            raise serializers.ValidationError(missing)
        return attrs


class FeedbackRows(ReadOnlyRows):
    """Answers of people. A POST adds one, or up to 1,000 as a list; none is changed, only taken back."""

    queryset = Feedback.objects.select_related("brand", "retailer", "recommendation", "other", "by")
    serializer_class = FeedbackSerializer
    change_roles = PEOPLE
    filterset_fields = ["task", "kind", "origin", "outcome", "adapter_digest", "prompt_version"]

    def get_queryset(self) -> Any:
        rows = super().get_queryset()
        user = self.request.user
        return rows if services.may_see_everyone(user) else rows.blind_for(user)

    @extend_schema(request=Wish, responses={201: FeedbackSerializer})
    def create(self, request: Request) -> Response:
        many = isinstance(request.data, list)
        if many and len(request.data) > MOST_AT_ONCE:
            raise BadInput(
                f"{len(request.data):,} answers: at most {MOST_AT_ONCE:,} are taken at once, so send them in parts"
            )
        wish = Wish(data=request.data, context={"request": request}, many=many)
        wish.is_valid(raise_exception=True)
        with all_or_nothing():
            rows = [
                services.give(by=request.user, **one)
                for one in (wish.validated_data if many else [wish.validated_data])
            ]
        told = self.get_serializer(rows, many=True).data
        return Response(told if many else told[0], status=status.HTTP_201_CREATED)

    @extend_schema(request=None, responses=FeedbackSerializer)
    @action(detail=True, methods=["post"])
    def undo(self, request: Request, **_: Any) -> Response:
        """Take back one's own answer."""
        return Response(self.get_serializer(services.undo(self.get_object(), request.user)).data)


class PreferencePair(Door):
    """POST the better of two: recommendations a and b with an outcome, or raw texts."""

    permission_classes = [MayChange]
    change_roles = PEOPLE

    @extend_schema(request=PairWish, responses={201: FeedbackSerializer})
    def post(self, request: Request) -> Response:
        wish = PairWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        asked = dict(wish.validated_data)
        brand, task = asked.pop("brand", None), asked.pop("task")
        if "a" in asked:
            row = services.give(
                by=request.user,
                kind=Feedback.Kind.PAIR,
                recommendation=asked.pop("a"),
                other=asked.pop("b"),
                **asked,
            )
        else:
            row = services.give_raw_pair(
                by=request.user, brand=services.brand_of(request.user, brand), task=task, **asked
            )
        return Response(FeedbackSerializer(row).data, status=status.HTTP_201_CREATED)


class FiltersSerializer(serializers.Serializer):
    """Which answers are meant."""

    brand = Reference(queryset=Brand.objects.all(), required=False)
    task = serializers.ChoiceField(choices=Task.choices, required=False)
    kind = serializers.ChoiceField(choices=Feedback.Kind.choices, required=False)
    origin = serializers.ChoiceField(choices=Feedback.Origin.choices, required=False)
    retailer = serializers.SlugField(required=False)
    adapter = serializers.RegexField(r"^[0-9a-f]{4,64}$", required=False)
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)
    min_agreement = serializers.FloatField(min_value=0, max_value=1, required=False)

    def filters(self) -> Filters:
        return Filters(**{k: v for k, v in self.validated_data.items() if k in Filters.__dataclass_fields__})


def _asked(request: Request, data: Any) -> tuple[Brand | None, Any, Filters]:
    """The brand that is meant, the answers of it that somebody may see, and the filters."""
    wish = FiltersSerializer(data=data, context={"request": request})
    wish.is_valid(raise_exception=True)
    rows = Feedback.objects.visible_to(request.user)
    brand = wish.validated_data.get("brand")
    return brand, rows.filter(brand=brand) if brand else rows, wish.filters()


class Statistics(Door):
    """Counts, approval, agreement with its ceiling, ranking of adapters, biases, rewrites, coverage."""

    permission_classes = [IsAuthenticated]

    @extend_schema(parameters=[FiltersSerializer], responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        brand, rows, filters = _asked(request, request.query_params)
        key = f"api:{request.user.pk}:{sorted(request.query_params.items())}"

        def all_of_it() -> dict[str, Any]:
            tasks = ReviewTask.objects.visible_to(request.user).filter(repeats=None)
            if brand is not None:
                tasks = tasks.filter(brand=brand)
            if filters.task:
                tasks = tasks.filter(task=filters.task)
            told = dict(figures.figures(request.user, brand, filters))
            return told | {"coverage": figures.coverage(tasks), "you": figures.profile(rows, request.user)}

        return Response(figures.kept(key, all_of_it))


class AsItIs(BaseContentNegotiation):
    """The endpoint names its own formats; ``format`` in the address is one of them, not a renderer's."""

    def select_parser(self, request: Any, parsers: Any) -> Any:  # noqa: ARG002
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:  # noqa: ARG002
        return renderers[0], renderers[0].media_type


class ExportDPO(Door):
    """Answers as training rows, one JSON object a line, streamed. For a file with a manifest: ``POST exports/``."""

    permission_classes = [IsAuthenticated]
    content_negotiation_class = AsItIs
    LINES = tuple(name for name in formats.FORMATS if name not in ("csv", "parquet"))

    @extend_schema(
        parameters=[FiltersSerializer, OpenApiParameter("format", str, enum=LINES, default="trl")],
        responses={(200, "application/x-ndjson"): OpenApiTypes.STR},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        wanted = request.query_params.get("format", "trl")
        if wanted not in self.LINES:
            raise BadInput(
                f"format {wanted[:40]!r}: one of {', '.join(self.LINES)}; POST exports/ makes csv and parquet"
            )
        _, rows, filters = _asked(request, request.query_params)

        def lines() -> Iterator[str]:
            for row in formats.rows(answers.exported(rows, filters, Redaction()), wanted):
                yield json.dumps(row, ensure_ascii=False) + "\n"

        answer = StreamingHttpResponse(lines(), content_type="application/x-ndjson; charset=utf-8")
        answer["Content-Disposition"] = 'attachment; filename="feedback.jsonl"'
        return answer


class ExportSerializer(RowSerializer):
    class Meta:
        model = Export
        fields = [*RUN_FIELDS, "task", "format", "filters", "rows", "manifest"]


class ExportWish(FiltersSerializer):
    """A file of answers: which, and in what format."""

    format = serializers.ChoiceField(choices=[(name, name) for name in formats.FORMATS], default="trl")


@extend_schema(parameters=[OpenApiParameter("id", UUID, OpenApiParameter.PATH)])
class FileOfExport(Door):
    """The file of a finished export."""

    permission_classes = [IsAuthenticated]

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, id: UUID) -> FileResponse:  # noqa: A002
        run = Export.objects.visible_to(request.user).filter(pk=id).first()
        if run is None or run.path is None:
            raise Http404
        return FileResponse(run.path.open("rb"), as_attachment=True, filename=run.path.name)


class Exports(ReadOnlyRows):
    """Files of answers: POST one, follow its run, then GET ``exports/<id>/file/``."""

    queryset = Export.objects.select_related("brand")
    serializer_class = ExportSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "format", "task"]

    @extend_schema(request=ExportWish, responses={202: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        wish = ExportWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        run = services.request_export(
            brand=services.brand_of(request.user, wish.validated_data.get("brand")),
            by=request.user,
            format=wish.validated_data["format"],
            filters=wish.filters(),
        )
        return self.accepted(run)


class ReviewTaskSerializer(RowSerializer):
    class Meta:
        model = ReviewTask
        fields = [
            "id",
            "brand",
            "retailer",
            "task",
            "kind",
            "recommendation",
            "other",
            "status",
            "priority",
            "votes_wanted",
            "votes_for_decision",
            "reserved_by",
            "reserved_until",
            "created_at",
        ]


class QuestionWish(serializers.Serializer):
    """A question to put to people."""

    recommendation = Reference(queryset=Recommendation.objects.select_related("brand", "retailer"))
    other = Reference(queryset=Recommendation.objects.select_related("brand", "retailer"), required=False)
    kind = serializers.ChoiceField(choices=Feedback.Kind.choices)
    votes_wanted = serializers.IntegerField(min_value=1, max_value=20, default=1)
    priority = serializers.FloatField(default=0.0)


class ReviewTasks(ReadOnlyRows):
    """Questions put to people: which wait, who holds one, how many answers are wanted."""

    queryset = ReviewTask.objects.select_related("brand", "retailer", "recommendation", "other", "reserved_by")
    serializer_class = ReviewTaskSerializer
    change_roles = PEOPLE
    filterset_fields = ["task", "kind", "status"]

    @extend_schema(request=QuestionWish, responses={201: ReviewTaskSerializer})
    def create(self, request: Request) -> Response:
        wish = QuestionWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        row = services.ask(**wish.validated_data)
        return Response(self.get_serializer(row).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=None, responses=ReviewTaskSerializer)
    @action(detail=True, methods=["post"])
    def reserve(self, request: Request, **_: Any) -> Response:
        """Hold a question for ten minutes, or ten more."""
        row = self.get_object()
        if not services.reserve(row, by=request.user):
            raise Problem(409, "Taken", "Somebody else holds this question, or it needs no more answers.")
        return Response(self.get_serializer(row).data)

    @extend_schema(request=None, responses=ReviewTaskSerializer)
    @action(detail=True, methods=["post"])
    def release(self, request: Request, **_: Any) -> Response:
        """Let go of a question."""
        row = self.get_object()
        services.release(row, by=request.user)
        row.refresh_from_db()
        return Response(self.get_serializer(row).data)


resources: dict[str, Any] = {  # address -> viewset
    "feedback": FeedbackRows,
    "review-tasks": ReviewTasks,
    "exports": Exports,
}
paths: list[Any] = [  # single endpoints
    path("feedback/preference-pair/", PreferencePair.as_view(), name="feedback-preference-pair"),
    path("feedback/stats/", Statistics.as_view(), name="feedback-stats"),
    path("feedback/export-dpo/", ExportDPO.as_view(), name="feedback-export-dpo"),
    path("exports/<uuid:id>/file/", FileOfExport.as_view(), name="export-file"),
]
