"""What integrations may ask of training, under /api/v1/."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from agents.models import Adapter
from campaigns.models import Task
from retailers.models import Brand, Retailer
from rmn.lib.rest import RUN_FIELDS, ReadOnlyRows, Reference, RowSerializer
from training import services
from training.lora.compose import METHODS
from training.models import Dataset, Evaluation, Lesson, TrainingRun

PEOPLE = {"analyst", "integration"}


class DatasetSerializer(RowSerializer):
    class Meta:
        model = Dataset
        fields = [
            *RUN_FIELDS,
            "retailer",
            "task",
            "kind",
            "digest",
            "rows_train",
            "rows_eval",
            "manifest",
            "revoked_at",
        ]


class DatasetWish(serializers.Serializer):
    """A set to build from a brand's feedback."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all(), required=False, allow_null=True)
    task = serializers.ChoiceField(choices=Task.choices)
    kind = serializers.ChoiceField(choices=["sft", "dpo", "kto"])
    min_agreement = serializers.FloatField(min_value=0, max_value=1, default=0.0)


class Datasets(ReadOnlyRows):
    """Rows that may train, with their manifest. A POST builds one."""

    queryset = Dataset.objects.select_related("brand", "retailer")
    serializer_class = DatasetSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "task", "kind", "digest"]

    @extend_schema(request=DatasetWish, responses={202: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        wish = DatasetWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        return self.accepted(services.request_dataset(**wish.validated_data, by=request.user))


class TrainingRunSerializer(RowSerializer):
    class Meta:
        model = TrainingRun
        fields = [
            *RUN_FIELDS,
            "retailer",
            "task",
            "method",
            "dataset",
            "parent",
            "adapter",
            "config",
            "estimate",
            "metrics",
            "stopped_by",
        ]


class Part(serializers.Serializer):
    """A version to compose, with its weight."""

    adapter = Reference(queryset=Adapter.objects.all())
    weight = serializers.FloatField(min_value=-10, max_value=10)


class CompositionWish(serializers.Serializer):
    """Versions composed into one of the brand's own; ``search`` looks for better weights on half of the unseen cases."""

    brand = Reference(queryset=Brand.objects.all())
    parts = Part(many=True, allow_empty=False)
    method = serializers.ChoiceField(choices=METHODS, default="cat")
    search = serializers.BooleanField(default=False)


class TrainingWish(serializers.Serializer):
    """A training on a data set; ``config`` holds keys of RUN.json (docs/training.md)."""

    dataset = Reference(queryset=Dataset.objects.all())
    parent = Reference(queryset=Adapter.objects.all(), required=False, allow_null=True)  # type: ignore[assignment]
    config = serializers.DictField(required=False)


class TrainingRuns(ReadOnlyRows):
    """Trainings: configuration, curve, and the adapter that came out. A POST starts one."""

    queryset = TrainingRun.objects.select_related("brand", "retailer", "dataset", "parent", "adapter")
    serializer_class = TrainingRunSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "task", "method"]

    @extend_schema(request=TrainingWish, responses={202: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        wish = TrainingWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        asked = wish.validated_data
        run = services.request_training(
            dataset=asked["dataset"], parent=asked.get("parent"), by=request.user, **asked.get("config", {})
        )
        return self.accepted(run)

    @extend_schema(request=CompositionWish, responses={202: OpenApiTypes.OBJECT})
    @action(detail=False, methods=["post"])
    def compose(self, request: Request) -> Response:
        """Retailer, brand and task versions into one; it waits for the gate like any other."""
        wish = CompositionWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        asked = wish.validated_data
        asked["parts"] = [(part["adapter"], part["weight"]) for part in asked["parts"]]
        return self.accepted(services.request_composition(**asked, by=request.user))


class EvaluationSerializer(RowSerializer):
    class Meta:
        model = Evaluation
        fields = [*RUN_FIELDS, "retailer", "task", "candidate", "champion", "suite", "verdict", "result"]


class EvaluationWish(serializers.Serializer):
    """A candidate against a champion; none is the base model."""

    brand = Reference(queryset=Brand.objects.all())
    task = serializers.ChoiceField(choices=Task.choices, default=Task.CREATIVE)
    candidate = Reference(queryset=Adapter.objects.all())
    champion = Reference(queryset=Adapter.objects.all(), required=False, allow_null=True)
    suite = serializers.CharField(max_length=120, default="creative")
    margin = serializers.FloatField(min_value=0, max_value=1, required=False)
    minimum = serializers.FloatField(min_value=0, max_value=1, required=False)


class Evaluations(ReadOnlyRows):
    """Comparisons of versions, with intervals and verdict. A POST starts one."""

    queryset = Evaluation.objects.select_related("brand", "retailer", "candidate", "champion")
    serializer_class = EvaluationSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "task", "verdict", "suite"]

    @extend_schema(request=EvaluationWish, responses={202: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        wish = EvaluationWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        return self.accepted(services.request_evaluation(**wish.validated_data, by=request.user))


class LessonSerializer(RowSerializer):
    class Meta:
        model = Lesson
        fields = [*RUN_FIELDS, "retailer", "task", "reason", "outcome", "found", "adapter"]


class LessonWish(serializers.Serializer):
    """Train, gate, stage: the whole chain, from a brand's answers."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all(), required=False, allow_null=True)
    task = serializers.ChoiceField(choices=Task.choices, default=Task.CREATIVE)


class Lessons(ReadOnlyRows):
    """From answers to a version on trial. A POST starts one; one that is under way in the scope is that one."""

    queryset = Lesson.objects.select_related("brand", "retailer", "adapter")
    serializer_class = LessonSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "task", "outcome"]

    @extend_schema(request=LessonWish, responses={202: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        wish = LessonWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        return self.accepted(services.request_lesson(**wish.validated_data, by=request.user))


resources: dict[str, Any] = {  # address -> viewset
    "datasets": Datasets,
    "training-runs": TrainingRuns,
    "evaluations": Evaluations,
    "lessons": Lessons,
}
paths: list[Any] = []  # single endpoints
