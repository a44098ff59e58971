"""What integrations may ask of agents, under /api/v1/."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from agents import columns, creative, decisions, forecasts, journal, rooms, services, serving
from agents.domain.columns import Column
from agents.models import (
    Adapter,
    AgentRun,
    AgentStep,
    Approval,
    CleanRoomConnection,
    CleanRoomQuery,
    Forecast,
    ReflectionLog,
)
from campaigns.api import ExperimentMove, ExperimentSerializer
from campaigns.api import Experiments as ExperimentsBelow
from campaigns.models import BudgetPlan, Experiment, Task
from retailers.models import Brand, Retailer
from rmn.lib.errors import BadInput, NotConfigured
from rmn.lib.rest import RUN_FIELDS, Door, MayChange, ReadOnlyRows, Reference, RowSerializer

# -- adapters


class AdapterSerializer(RowSerializer):
    """One immutable version of an adapter, and the aliases it serves under."""

    aliases = serializers.SerializerMethodField()

    class Meta:
        model = Adapter
        fields = [
            "id",
            "brand",
            "retailer",
            "task",
            "scope",
            "kind",
            "digest",
            "state",
            "base_model",
            "rank",
            "parents",
            "gate",
            "proof",
            "aliases",
            "created_at",
        ]

    def get_aliases(self, row: Adapter) -> list[str]:
        return [alias.name for alias in row.aliases.all()]


class DeploySerializer(serializers.Serializer):
    """Which alias a version shall have, and its share of campaigns as a challenger."""

    alias = serializers.ChoiceField(["champion", "challenger", "shadow"], default="champion")
    share = serializers.FloatField(default=1.0, min_value=0.001, max_value=1.0)


class RollBackSerializer(serializers.Serializer):
    """Which alias is taken back, and why."""

    alias = serializers.ChoiceField(["champion", "challenger", "shadow"], default="champion")
    reason = serializers.CharField(max_length=400, default="rolled back")


class AcceptedSerializer(serializers.Serializer):
    """A run that was wished for."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    status = serializers.CharField()
    url = serializers.CharField()


class Adapters(ReadOnlyRows):
    """Adapter versions: look, deploy, take back. Which one answers is decided here, never by a client."""

    queryset = Adapter.objects.select_related("brand", "retailer").prefetch_related("aliases")
    serializer_class = AdapterSerializer
    filterset_fields = ["task", "state", "kind", "digest"]

    @extend_schema(request=DeploySerializer, responses={200: OpenApiTypes.OBJECT, 202: AcceptedSerializer})
    @action(detail=True, methods=["post"])
    def deploy(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002
        """Prove the version on the model server and give it the alias; answers with the run, or who must still approve."""
        wish = DeploySerializer(data=request.data)
        wish.is_valid(raise_exception=True)
        row = self.get_object()
        run = decisions.decide_adapter(row, "approve", request.user, **wish.validated_data)
        return self.accepted(run) if run is not None else Response(_so_far(row))

    @extend_schema(request=RollBackSerializer, responses=AdapterSerializer)
    @action(detail=True, methods=["post"])
    def rollback(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002
        """Take the alias away from this version's scope; the version before serves at once."""
        wish = RollBackSerializer(data=request.data)
        wish.is_valid(raise_exception=True)
        row = self.get_object()
        services.roll_back_adapter(
            brand=row.brand, retailer=row.retailer, task=row.task, by=request.user, **wish.validated_data
        )
        return Response(AdapterSerializer(self.get_object(), context=self.get_serializer_context()).data)


class StepSerializer(serializers.ModelSerializer):
    decided_by: Any = serializers.SlugRelatedField(slug_field="username", read_only=True)

    class Meta:
        model = AgentStep
        fields = [
            "number",
            "tool",
            "arguments",
            "valid",
            "errors",
            "repaired",
            "raw",
            "result",
            "result_digest",
            "seconds",
            "approval",
            "changes",
            "decided_by",
            "decided_at",
        ]


class AgentRunSerializer(RowSerializer):
    steps = StepSerializer(many=True, read_only=True)

    class Meta:
        model = AgentRun
        fields = [*RUN_FIELDS, "retailer", "goal", "source", "playbook", "stop", "pending", "limits", "trace", "steps"]


class GoalSerializer(serializers.Serializer):
    """A goal in words."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all(), required=False, allow_null=True)
    goal = serializers.CharField(max_length=4000)
    limits = serializers.DictField(
        required=False, help_text="Any of steps, seconds, tokens, cost, tool_seconds; each at most the usual one."
    )


class DecisionSerializer(serializers.Serializer):
    """A word on something that waits: a plan, a test, a question to a clean room, an adapter, or what a run of the planner proposed."""

    budget_plan = Reference(queryset=BudgetPlan.objects.select_related("brand", "retailer"), required=False)
    experiment = Reference(queryset=Experiment.objects.select_related("brand", "retailer"), required=False)
    clean_room_query = Reference(
        queryset=CleanRoomQuery.objects.select_related("brand", "connection__retailer"), required=False
    )
    adapter = Reference(queryset=Adapter.objects.select_related("brand", "retailer"), required=False)
    agent_run = Reference(queryset=AgentRun.objects.select_related("brand", "retailer"), required=False)
    step = serializers.IntegerField(required=False, min_value=0, help_text="Of a run: that step alone.")
    outcome = serializers.ChoiceField(
        choices=["approve", "modify", "reject", "undo"],
        help_text="undo takes your own newest word back: for ten minutes, unless its effect has happened.",
    )
    changes = serializers.DictField(
        required=False,
        help_text="To modify a plan: total_budget, unavailable, limits {arm: {min, max, fixed}}; a test on stores: duration, most_units.",
    )
    note = serializers.CharField(required=False, allow_blank=True, max_length=2000, default="")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        known = ("budget_plan", "experiment", "clean_room_query", "adapter", "agent_run")
        named = [name for name in known if attrs.get(name)]
        if len(named) != 1:
            raise serializers.ValidationError(f"Name one of {', '.join(known)}.")
        return attrs | {"subject": attrs[named[0]]}


class ApprovalSerializer(RowSerializer):
    """One person's word."""

    class Meta:
        model = Approval
        fields = ["id", "brand", "tool", "subject", "title", "amount", "currency", "outcome", "by", "note", "changes", "needed", "undone_at", "created_at"]  # fmt: skip


def _so_far(subject: Any) -> dict[str, Any]:
    """Who has approved, and how many must."""
    if isinstance(subject, AgentRun):
        return {"agent_run": str(subject.pk), "stop": subject.stop, "pending": subject.pending}
    name = subject._meta.verbose_name.replace(" ", "_")
    return {
        name: str(subject.uuid),
        "state": subject.state,
        "needed": decisions.needed(subject),
        "approved_by": [str(word.by or "the operator") for word in decisions.words_so_far(subject)],
    }


class Approvals(Door):
    """What waits for a decision (GET), and a word on it (POST): once as many have approved as the rules ask, it is done."""

    permission_classes = [MayChange]
    change_roles = {"analyst"}

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        rows = [
            {"title": str(row), "brand": getattr(row.brand, "slug", None), "created_at": row.created_at, **_so_far(row)}
            for row in decisions.waiting(request.user)
        ]
        said = Approval.objects.visible_to(request.user).select_related("brand", "by")[:50]
        return Response({"waiting": rows, "said": ApprovalSerializer(said, many=True).data})

    @extend_schema(request=DecisionSerializer, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request) -> Response:
        asked = DecisionSerializer(data=request.data, context={"request": request})
        asked.is_valid(raise_exception=True)
        told = asked.validated_data
        subject, outcome, note = told["subject"], told["outcome"], told["note"]
        if not decisions.may_decide(request.user, subject.brand):
            raise PermissionDenied("Only analysts and ops staff of the brand decide.")
        if outcome == "undo":
            decisions.undo_last(subject, request.user)
            subject.refresh_from_db()
            return Response(_so_far(subject))
        if outcome == "modify":
            subject = decisions.changeable(subject, told.get("step"))
            changed = decisions.change(subject, told.get("changes") or {}, request.user, note)
            return Response(
                {**_so_far(changed), "replaces": str(subject.pk), "changes": decisions.differences(subject, changed)}
            )
        if isinstance(subject, AgentRun):
            return Response(_so_far(decisions.decide_run(subject, outcome, request.user, note, told.get("step"))))
        decisions.decide(subject, outcome, request.user, note)
        subject.refresh_from_db()
        return Response(_so_far(subject))


class AgentRuns(ReadOnlyRows):
    """Goals on their way through the agents, step by step. A POST sends one on its way."""

    change_roles = {"marketer", "analyst", "integration"}

    @extend_schema(request=GoalSerializer, responses={202: AcceptedSerializer})
    def create(self, request: Request) -> Response:
        asked = GoalSerializer(data=request.data, context={"request": request})
        asked.is_valid(raise_exception=True)
        return self.accepted(services.request_plan(**asked.validated_data, by=request.user))

    queryset = AgentRun.objects.select_related("brand", "retailer").prefetch_related("steps")
    serializer_class = AgentRunSerializer
    filterset_fields = ["status", "stop", "source"]


class ReflectionSerializer(RowSerializer):
    class Meta:
        model = ReflectionLog
        fields = [
            "id",
            "brand",
            "retailer",
            "recommendation",
            "task",
            "agent",
            "context",
            "phase",
            "memory_reference",
            "alternate_frames",
            "risk_assessment",
            "confidence",
            "decision_threshold",
            "bias_checkpoint",
            "biases",
            "validations",
            "verdict",
            "should_proceed",
            "decision",
            "decided_by",
            "decided_at",
            "outcome",
            "monitors",
            "reopened_at",
            "created_at",
        ]


class ReflectionWish(serializers.Serializer):
    """A reflection: what is to be decided, and as much of the record as is known; the rest by amend."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all(), required=False, allow_null=True)
    context = serializers.CharField(max_length=240)  # type: ignore[assignment]  # fields leave the class's names free
    task = serializers.ChoiceField(choices=Task.choices, required=False, allow_blank=True, default="")
    record = serializers.DictField(required=False, default=dict)


class ValidationSerializer(serializers.Serializer):
    """In whose name: one's own, a role or a group one has."""

    name = serializers.CharField(max_length=80)


class CarryOutSerializer(serializers.Serializer):
    """What is decided, in words."""

    decision = serializers.CharField(max_length=2000)


class Reflections(ReadOnlyRows):
    """Why decisions were taken: frames, risks, confidence, threshold, verdict."""

    queryset = ReflectionLog.objects.select_related("brand", "retailer", "recommendation", "decided_by")
    serializer_class = ReflectionSerializer
    filterset_fields = ["phase", "task", "should_proceed", "agent"]
    change_roles = {"marketer", "analyst", "integration"}

    @extend_schema(request=ReflectionWish, responses={201: ReflectionSerializer})
    def create(self, request: Request) -> Response:
        asked = ReflectionWish(data=request.data, context={"request": request})
        asked.is_valid(raise_exception=True)
        return self._shown(journal.open_one(**asked.validated_data, by=request.user), 201)

    @extend_schema(request=OpenApiTypes.OBJECT, responses=ReflectionSerializer)
    @action(detail=True, methods=["post"])
    def amend(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002
        """Add parts of the record: lists grow, a risk of the same factor is replaced, single values too."""
        if not isinstance(request.data, dict):
            raise serializers.ValidationError("An object with parts of the record.")
        return self._shown(journal.amend(self.get_object(), dict(request.data)))

    @extend_schema(request=ValidationSerializer, responses=ReflectionSerializer)
    @action(detail=True, methods=["post"])
    def validate(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002
        """Validate in the name of a role or team that one has."""
        asked = ValidationSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return self._shown(journal.validate(self.get_object(), asked.validated_data["name"], request.user))

    @extend_schema(request=CarryOutSerializer, responses=ReflectionSerializer)
    @action(detail=True, methods=["post"])
    def decide(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002
        """Decide to go on; refused with the reasons while it should not proceed."""
        asked = CarryOutSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        row = self.get_object()
        if not decisions.may_decide(request.user, row.brand):
            raise PermissionDenied("Only analysts and ops staff of the brand decide.")
        return self._shown(journal.carry_out(row, asked.validated_data["decision"], request.user))

    def _shown(self, row: ReflectionLog, status: int = 200) -> Response:
        return Response(ReflectionSerializer(row, context=self.get_serializer_context()).data, status=status)


class ForecastSerializer(RowSerializer):
    class Meta:
        model = Forecast
        fields = [
            "id",
            "brand",
            "retailer",
            "reflection",
            "recommendation",
            "task",
            "agent",
            "adapter_digest",
            "made_by",
            "statement",
            "metric",
            "comparison",
            "value",
            "low",
            "high",
            "level",
            "probability",
            "due",
            "status",
            "happened",
            "observed",
            "resolved_at",
            "subject",
            "resolution",
        ]


class ForecastWish(serializers.Serializer):
    """A person's own forecast: a claim on a metric with a probability, or an interval with its level."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all(), required=False, allow_null=True)
    statement = serializers.CharField(max_length=400)
    metric = serializers.CharField(max_length=80)
    comparison = serializers.ChoiceField(choices=list(forecasts.COMPARISONS))
    value = serializers.FloatField(required=False)
    low = serializers.FloatField(required=False)
    high = serializers.FloatField(required=False)
    level = serializers.FloatField(required=False)
    probability = serializers.FloatField(required=False)
    subject = serializers.DictField(required=False)
    task = serializers.ChoiceField(choices=Task.choices, required=False, default="")
    due = serializers.DateField()


class ProbabilitySerializer(serializers.Serializer):
    probability = serializers.FloatField(min_value=0, max_value=1)


class OutcomeSerializer(serializers.Serializer):
    """What was observed, or whether it happened; or ``reason`` alone where it can never be said."""

    observed = serializers.FloatField(required=False)
    happened = serializers.BooleanField(required=False, allow_null=True, default=None)
    note = serializers.CharField(required=False, allow_blank=True, max_length=2000, default="")
    unresolvable = serializers.BooleanField(required=False, default=False)


class Forecasts(ReadOnlyRows):
    """What decisions expect; a forecast is never edited, only resolved."""

    queryset = Forecast.objects.select_related("brand", "retailer", "reflection", "recommendation", "made_by")
    serializer_class = ForecastSerializer
    filterset_fields = ["status", "task", "happened", "agent", "due"]
    change_roles = {"marketer", "analyst"}

    @extend_schema(request=ForecastWish, responses={201: ForecastSerializer})
    def create(self, request: Request) -> Response:
        asked = ForecastWish(data=request.data, context={"request": request})
        asked.is_valid(raise_exception=True)
        return self._shown(forecasts.make(**asked.validated_data, by=request.user), 201)

    @extend_schema(request=ProbabilitySerializer, responses={201: ForecastSerializer})
    @action(detail=True, methods=["post"])
    def beside(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002
        """One's own probability for the same claim."""
        asked = ProbabilitySerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return self._shown(forecasts.beside(self.get_object(), asked.validated_data["probability"], request.user), 201)

    @extend_schema(request=OutcomeSerializer, responses=ForecastSerializer)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, id: str) -> Response:  # noqa: A002, ARG002
        """Say what came of it, once."""
        asked = OutcomeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        told, row = asked.validated_data, self.get_object()
        if told.pop("unresolvable"):
            return self._shown(forecasts.give_up(row, told["note"], request.user))
        return self._shown(forecasts.resolve(row, **told, by=request.user))

    @extend_schema(parameters=[OpenApiParameter("by", enum=list(forecasts.BY))], responses=OpenApiTypes.OBJECT)
    @action(detail=False, methods=["get"])
    def scores(self, request: Request) -> Response:
        """Scores of what was resolved, all together and by agent, adapter, person, retailer or task."""
        rows = self.filter_queryset(self.get_queryset())
        return Response(forecasts.score(rows, request.query_params.get("by", "")))

    def _shown(self, row: Forecast, status: int = 200) -> Response:
        return Response(ForecastSerializer(row, context=self.get_serializer_context()).data, status=status)


class CleanRoomQuerySerializer(RowSerializer):
    class Meta:
        model = CleanRoomQuery
        fields = [*RUN_FIELDS, "template", "parameters", "state", "cost", "result", "suppressed"]


class CleanRoomWish(serializers.Serializer):
    """Which room, which reviewed question, with what in its blanks."""

    connection = Reference(queryset=CleanRoomConnection.objects.select_related("brand"))
    template = serializers.CharField(max_length=80)
    parameters = serializers.DictField(required=False, default=dict)


class CleanRoomQueries(ReadOnlyRows):
    """Questions to clean rooms, from intent to release."""

    queryset = CleanRoomQuery.objects.select_related("brand", "connection")
    serializer_class = CleanRoomQuerySerializer
    change_roles = {"analyst"}
    filterset_fields = ["status", "state", "template"]

    @extend_schema(request=CleanRoomWish, responses={202: AcceptedSerializer})
    def create(self, request: Request) -> Response:
        """Ask a reviewed question of one of the brand's clean rooms; its cost is taken from the budget."""
        wish = CleanRoomWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        return self.accepted(
            rooms.request(brand=wish.validated_data["connection"].brand, by=request.user, **wish.validated_data)
        )


class Experiments(ExperimentsBelow):
    """Tests of what an ad brings. A POST designs one; its life goes on by named steps."""

    @extend_schema(request=ExperimentMove, responses=ExperimentSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, **_: Any) -> Response:
        """Let it be run; analysts and ops staff may, as many as the rules ask for. Registers where that is missing."""
        asked = ExperimentMove(data=request.data)
        asked.is_valid(raise_exception=True)
        row = self.get_object()
        if not decisions.may_decide(request.user, row.brand):
            raise BadInput("only analysts and ops staff approve a test; ask one of them")
        done = decisions.decide(row, "approve", request.user, asked.validated_data.get("note", ""))
        return Response(self.get_serializer(done).data)


resources: dict[str, Any] = {  # address -> viewset
    "experiments": Experiments,
    "adapters": Adapters,
    "agent-runs": AgentRuns,
    "reflections": Reflections,
    "forecasts": Forecasts,
    "clean-room-queries": CleanRoomQueries,
}


class BriefSerializer(serializers.Serializer):
    """What copy is wanted for, and how much of it."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all())
    product = serializers.CharField(max_length=240)
    feature = serializers.CharField(max_length=240, allow_blank=True, default="")
    variants = serializers.IntegerField(min_value=1, max_value=creative.MOST_VARIANTS, default=5)


class WriteText(Door):
    """Headlines for a product, written by the brand's adapter; only what passes is offered, the rest says why."""

    permission_classes = [IsAuthenticated]

    @extend_schema(request=BriefSerializer, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request) -> Response:
        asked = BriefSerializer(data=request.data, context={"request": request})
        asked.is_valid(raise_exception=True)
        if not settings.RMN_INFERENCE_URL:
            raise NotConfigured("no model server: start everything with make run, or set RMN_INFERENCE_URL")
        with serving.inference() as client:
            return Response({"variants": creative.write(client, **asked.validated_data)})


class ColumnSerializer(serializers.Serializer):
    """A column of a report that nobody has mapped."""

    header = serializers.CharField(max_length=240)
    values = serializers.ListField(
        child=serializers.CharField(max_length=400, allow_blank=True), max_length=20, default=list
    )


class ColumnsSerializer(serializers.Serializer):
    """Columns, and the retailer whose adapter is asked."""

    retailer = Reference(queryset=Retailer.objects.all())
    columns = ColumnSerializer(many=True, allow_empty=False, max_length=columns.MOST_COLUMNS)  # type: ignore[call-arg]  # the list has it


class SuggestFields(Door):
    """Which field of RMIS each column is likely to be, by the retailer's adapter; a person takes or leaves it."""

    permission_classes = [IsAuthenticated]

    @extend_schema(request=ColumnsSerializer, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request) -> Response:
        asked = ColumnsSerializer(data=request.data, context={"request": request})
        asked.is_valid(raise_exception=True)
        adapter = columns.reader_of(asked.validated_data["retailer"])
        wanted = [Column(one["header"], tuple(one["values"])) for one in asked.validated_data["columns"]]
        if not settings.RMN_INFERENCE_URL:
            raise NotConfigured("no model server: start everything with make run, or set RMN_INFERENCE_URL")
        with serving.inference() as client:
            found = columns.suggest(client, adapter, wanted)
        return Response(
            {
                "adapter": adapter.digest,
                "how_sure": columns.how_sure(adapter),
                "suggestions": [{"header": one.header, "field": one.field} for one in found],
            }
        )


paths: list[Any] = [  # single endpoints
    path("mapping-suggestions/", SuggestFields.as_view(), name="mapping-suggestions"),
    path("approvals/", Approvals.as_view(), name="approvals"),
    path("texts/write", WriteText.as_view(), name="write-text"),
]
