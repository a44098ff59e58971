"""What integrations may ask of campaigns, under /api/v1/."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns import copy, services
from campaigns.models import (
    AudienceSegment,
    BudgetPlan,
    Campaign,
    CurveFit,
    Experiment,
    Recommendation,
    ResponseCurve,
)
from retailers.models import Brand, Retailer
from rmn.lib.errors import BadInput
from rmn.lib.rest import RUN_FIELDS, ReadOnlyRows, Reference, RowSerializer, WritableRows, address

PEOPLE = {"marketer", "analyst", "integration"}
MOST_BUDGETS = 200


class CampaignSerializer(RowSerializer):
    class Meta:
        model = Campaign
        fields = [
            "id",
            "brand",
            "retailer",
            "name",
            "account_id",
            "network_campaign_id",
            "tactic",
            "objective",
            "status",
            "currency",
            "budget",
            "budget_per_day",
            "constraints",
            "start_date",
            "end_date",
            "audience",
        ]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        start = attrs.get("start_date", getattr(self.instance, "start_date", None))
        end = attrs.get("end_date", getattr(self.instance, "end_date", None))
        if start and end and end < start:
            raise serializers.ValidationError({"end_date": f"ends {end}, before it starts {start}"})
        return attrs


class Campaigns(WritableRows):
    """What is bought from one retailer between two dates."""

    queryset = Campaign.objects.select_related("brand", "retailer", "audience")
    serializer_class = CampaignSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "tactic", "network_campaign_id", "start_date"]


class AudienceSerializer(RowSerializer):
    class Meta:
        model = AudienceSegment
        fields = [
            "id",
            "brand",
            "retailer",
            "name",
            "definition",
            "reach_estimate",
            "reach_low",
            "reach_high",
            "reach_unit",
            "source",
        ]


class Audiences(WritableRows):
    """People an ad may be shown to, and how many they are thought to be."""

    queryset = AudienceSegment.objects.select_related("brand", "retailer")
    serializer_class = AudienceSerializer
    change_roles = PEOPLE
    filterset_fields = ["name"]


class CurveSerializer(RowSerializer):
    class Meta:
        model = ResponseCurve
        fields = [
            "id",
            "brand",
            "retailer",
            "campaign",
            "arm",
            "tactic",
            "kind",
            "scale",
            "half",
            "exponent",
            "points",
            "std",
            "currency",
            "period_days",
            "spend_seen_max",
            "evidence",
            "spend_assumed",
            "warnings",
            "is_current",
        ]


class FitWish(serializers.Serializer):
    """Fit the curves of a brand anew."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all(), required=False, allow_null=True)
    start = serializers.DateField(required=False)
    end = serializers.DateField(required=False)


class Curves(ReadOnlyRows):
    """What spend on one arm brings. A POST fits all of a brand's curves anew."""

    queryset = ResponseCurve.objects.select_related("brand", "retailer", "campaign")
    serializer_class = CurveSerializer
    change_roles = PEOPLE
    filterset_fields = ["is_current", "evidence", "tactic", "arm"]

    @extend_schema(request=FitWish, responses={202: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        wish = FitWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        return self.accepted(services.request_fit(**wish.validated_data, by=request.user))


class CurveFitSerializer(RowSerializer):
    class Meta:
        model = CurveFit
        fields = [*RUN_FIELDS, "retailer", "window_start", "window_end", "result"]


class CurveFits(ReadOnlyRows):
    """Fittings of curves, with intervals and warnings."""

    queryset = CurveFit.objects.select_related("brand", "retailer")
    serializer_class = CurveFitSerializer
    filterset_fields = ["status"]


class PlanSerializer(RowSerializer):
    class Meta:
        model = BudgetPlan
        fields = [
            *RUN_FIELDS,
            "retailer",
            "name",
            "state",
            "total_budget",
            "currency",
            "period_start",
            "period_end",
            "problem",
            "plan",
            "even_split",
            "spend_assumed",
            "decided_by",
            "decided_at",
            "decision_note",
        ]


class PlanWish(serializers.Serializer):
    """A budget to split: over the brand's fitted curves, or over the arms of a whole PROBLEM."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all(), required=False, allow_null=True)
    name = serializers.CharField(max_length=160, default="Budget plan")
    total_budget = serializers.DecimalField(max_digits=18, decimal_places=2, min_value=0, required=False)
    period_start = serializers.DateField(required=False)
    period_end = serializers.DateField(required=False)
    groups = serializers.ListField(child=serializers.DictField(), required=False, max_length=500)
    limits = serializers.DictField(child=serializers.DictField(), required=False)
    spend_all = serializers.BooleanField(default=False)
    problem = serializers.DictField(required=False, help_text="PROBLEM as allocate_budget takes it")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "problem" not in attrs and "total_budget" not in attrs:
            raise serializers.ValidationError({"total_budget": "needed, unless a whole problem is given"})
        start, end = attrs.get("period_start"), attrs.get("period_end")
        if start and end and end < start:
            raise serializers.ValidationError({"period_end": f"ends {end}, before it starts {start}"})
        return attrs


class Plans(ReadOnlyRows):
    """Splits of a budget, each with its value, bound, and the price of every limit."""

    queryset = BudgetPlan.objects.select_related("brand", "retailer", "decided_by")
    serializer_class = PlanSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "state"]

    @extend_schema(request=PlanWish, responses={202: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        wish = PlanWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        return self.accepted(services.request_plan_as_wished(**wish.validated_data, by=request.user))

    @extend_schema(
        parameters=[OpenApiParameter("budget", float, many=True, required=True, description="any number of budgets")],
        responses=OpenApiTypes.OBJECT,
    )
    @action(detail=True, url_path="what-if")
    def what_if(self, request: Request, **_: Any) -> Response:
        """The same problem under other budgets: ``?budget=50000&budget=80000``."""
        try:
            budgets = [float(text) for text in request.query_params.getlist("budget")]
        except ValueError:
            raise BadInput("budget: a number was expected, such as ?budget=50000") from None
        if not 1 <= len(budgets) <= MOST_BUDGETS:
            raise BadInput(f"budget: between 1 and {MOST_BUDGETS} of them were expected, not {len(budgets)}")
        return Response(services.what_if(self.get_object(), budgets))

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=True)
    def changes(self, request: Request, **_: Any) -> Response:  # noqa: ARG002
        """The change set: each arm's budget now and in the plan, and whether its change limit holds."""
        plan = self.get_object()
        rows = [
            {
                "arm": one.arm,
                "name": one.name,
                "network": one.network,
                "campaign_id": one.campaign,
                "old": one.old,
                "old_is": one.old_is,
                "new": one.new,
                "difference": one.difference,
                "largest_change": one.limit,
                "within_limit": one.within,
                "new_per_day": one.new_per_day,
            }
            for one in services.changes_of(plan)
        ]
        return Response({"currency": plan.currency, "changes": rows})

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=True)
    def pacing(self, request: Request, **_: Any) -> Response:  # noqa: ARG002
        """Spend to date against the plan, with where each arm ends and when it runs out."""
        arms, seen_to = services.pacing_of(self.get_object())
        told = [{**vars(one), "off": one.off, "state": one.state} for one in arms]
        return Response({"seen_to": seen_to, "arms": told})

    @extend_schema(
        parameters=[OpenApiParameter("with", str, required=True, description="the other plan's id")],
        responses=OpenApiTypes.OBJECT,
    )
    @action(detail=True)
    def compare(self, request: Request, **_: Any) -> Response:
        """This plan and another one of the same brand: what each is worth, and where the money differs."""
        one = self.get_object()
        others = self.get_queryset().filter(brand=one.brand, currency=one.currency)
        other = others.filter(address(BudgetPlan, request.query_params.get("with", ""))).first()
        if other is None:
            raise BadInput("with: the id of another plan of the same brand and currency was expected")
        return Response(services.compared(one, other))


class ExperimentSerializer(RowSerializer):
    class Meta:
        model = Experiment
        fields = [
            *RUN_FIELDS,
            "retailer",
            "campaign",
            "name",
            "kind",
            "state",
            "hypothesis",
            "spec",
            "design",
            "analysis_spec",
            "result",
            "registered_hash",
            "registered_at",
            "start_date",
            "end_date",
        ]


class ExperimentWish(serializers.Serializer):
    """A test to design: on the retailer's own past by store, or on a table that is handed in."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all(), required=False, allow_null=True)
    campaign = Reference(queryset=Campaign.objects.all(), required=False, allow_null=True)
    name = serializers.CharField(max_length=160)
    hypothesis = serializers.CharField(required=False, allow_blank=True, max_length=4000)
    spec = serializers.DictField(help_text="SPEC as design_experiment takes it, without data")
    analysis_spec = serializers.DictField(required=False, help_text="SPEC as analyze_experiment takes it, without data")
    table = serializers.CharField(required=False, max_length=services.MOST_TABLE_BYTES, help_text="a CSV as text")


class ExperimentMove(serializers.Serializer):
    """A step in a test's life."""

    note = serializers.CharField(required=False, allow_blank=True, max_length=500)
    day = serializers.DateField(required=False, help_text="start: the first day of the test")
    table = serializers.CharField(
        required=False, max_length=services.MOST_TABLE_BYTES, help_text="analyse: a CSV with the test in it"
    )


class Experiments(ReadOnlyRows):
    """Tests of what an ad brings. A POST designs one; its life goes on by named steps.

    The address stands with the agents, whose approval service lets a test run.
    """

    queryset = Experiment.objects.select_related("brand", "retailer", "campaign")
    serializer_class = ExperimentSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "state", "kind"]

    @extend_schema(request=ExperimentWish, responses={202: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        wish = ExperimentWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        return self.accepted(services.request_experiment(**wish.validated_data, by=request.user))

    def _move(self, request: Request, move: str) -> Response:
        asked = ExperimentMove(data=request.data)
        asked.is_valid(raise_exception=True)
        row = services.move_experiment(self.get_object(), move, request.user, **asked.validated_data)
        return self.accepted(row) if move in ("look", "analyse") else Response(self.get_serializer(row).data)

    @extend_schema(request=ExperimentMove, responses=ExperimentSerializer)
    @action(detail=True, methods=["post"])
    def register(self, request: Request, **_: Any) -> Response:
        """Fix the plan: its hash goes into the audit chain, and it cannot be changed afterwards."""
        return self._move(request, "register")

    @extend_schema(request=ExperimentMove, responses=ExperimentSerializer)
    @action(detail=True, methods=["post"])
    def start(self, request: Request, **_: Any) -> Response:
        """It runs from this day."""
        return self._move(request, "start")

    @extend_schema(request=ExperimentMove, responses={202: OpenApiTypes.OBJECT})
    @action(detail=True, methods=["post"])
    def look(self, request: Request, **_: Any) -> Response:
        """Read it while it runs, by the looks that were registered."""
        return self._move(request, "look")

    @extend_schema(request=ExperimentMove, responses={202: OpenApiTypes.OBJECT})
    @action(detail=True, methods=["post"])
    def analyse(self, request: Request, **_: Any) -> Response:
        """Read it as it was registered."""
        return self._move(request, "analyse")

    @extend_schema(request=ExperimentMove, responses=ExperimentSerializer)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, **_: Any) -> Response:
        """End it without a result."""
        return self._move(request, "stop")


class RecommendationSerializer(RowSerializer):
    class Meta:
        model = Recommendation
        fields = [
            "id",
            "brand",
            "retailer",
            "task",
            "title",
            "text",
            "prompt",
            "content",
            "source",
            "status",
            "campaign",
            "sku",
            "verdict",
            "model",
            "adapter_digest",
            "prompt_version",
            "created_at",
        ]
        read_only_fields = ["status", "source", "verdict", "model", "adapter_digest", "prompt_version", "created_at"]


class CopyCheck(serializers.Serializer):
    """What is new about a text: its wording, or evidence for what it says."""

    text = serializers.CharField(required=False, max_length=10_000)
    evidence = serializers.CharField(required=False, allow_blank=True, max_length=2000)


class CopyProof(serializers.Serializer):
    """Evidence for what a text says: a file or an address, and what it shows in the claim's words."""

    note = serializers.CharField(max_length=2000)
    link = serializers.CharField(required=False, allow_blank=True, max_length=400)
    file = serializers.FileField(required=False)


class CopyOverride(serializers.Serializer):
    reason = serializers.CharField(max_length=1000)


class CopyAnswer(serializers.Serializer):
    outcome = serializers.ChoiceField(choices=copy.OUTCOMES)
    note = serializers.CharField(required=False, allow_blank=True, max_length=500)


class Recommendations(WritableRows):
    """What is judged: plans, texts, tests, next steps. One that is posted is a person's own."""

    queryset = Recommendation.objects.select_related("brand", "retailer", "campaign", "sku")
    serializer_class = RecommendationSerializer
    change_roles = PEOPLE
    filterset_fields = ["task", "status", "source"]
    http_method_names = ["get", "post", "head", "options"]

    def perform_create(self, serializer: Any) -> None:
        serializer.save(source=Recommendation.Source.PERSON, made_by=self.request.user)

    def _step(self, request: Request, step: Any, form: type[serializers.Serializer]) -> Response:
        asked = form(data=request.data)
        asked.is_valid(raise_exception=True)
        return Response(self.get_serializer(step(self.get_object(), request.user, **asked.validated_data)).data)

    @extend_schema(request=CopyCheck, responses=RecommendationSerializer)
    @action(detail=True, methods=["post"])
    def check(self, request: Request, **_: Any) -> Response:
        """Judge a text by the rules of today, with another wording or with evidence added."""
        return self._step(request, copy.check, CopyCheck)

    @extend_schema(request={"multipart/form-data": CopyProof}, responses=RecommendationSerializer)
    @action(detail=True, methods=["post"], parser_classes=[MultiPartParser])
    def evidence(self, request: Request, **_: Any) -> Response:
        """Put proof on file (PDF, PNG, JPEG or plain text, or an address) and judge the text again."""
        asked = CopyProof(data=request.data)
        asked.is_valid(raise_exception=True)
        copy.add_evidence(self.get_object(), request.user, **asked.validated_data)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=CopyOverride, responses=RecommendationSerializer)
    @action(detail=True, methods=["post"])
    def override(self, request: Request, **_: Any) -> Response:
        """Let this very text be published against its verdict; ops staff may, with a reason that is kept."""
        return self._step(request, copy.override, CopyOverride)

    @extend_schema(request=None, responses=RecommendationSerializer)
    @action(detail=True, methods=["post"])
    def publish(self, request: Request, **_: Any) -> Response:
        """Publish a text as it was checked; one that was changed since is refused."""
        return Response(self.get_serializer(copy.publish(self.get_object(), request.user)).data)

    @extend_schema(request=CopyAnswer, responses=RecommendationSerializer)
    @action(detail=True, methods=["post"], url_path="network-answer")
    def network_answer(self, request: Request, **_: Any) -> Response:
        """Keep what the network said of a published text."""
        return self._step(request, copy.answer, CopyAnswer)


resources: dict[str, Any] = {  # address -> viewset
    "campaigns": Campaigns,
    "audiences": Audiences,
    "response-curves": Curves,
    "curve-fits": CurveFits,
    "budget-plans": Plans,
    "recommendations": Recommendations,
}
paths: list[Any] = []  # single endpoints
