"""What integrations may ask of retailers, under /api/v1/."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import Prefetch
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.parsers import MultiPartParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from retailers import services, webhooks
from retailers.domain import catalogue, identifiers, policy
from retailers.domain import mapping as mappings
from retailers.models import (
    AuditEntry,
    Brand,
    Delivery,
    FeedLoad,
    FeedMapping,
    MetricOutcome,
    PerformanceMetric,
    PolicyRule,
    QuarantinedRow,
    Retailer,
    SKUCatalog,
    Webhook,
    roles,
)
from rmn.lib import outbound
from rmn.lib.rest import RUN_FIELDS, Door, ReadOnlyRows, Reference, RowSerializer, WritableRows

PEOPLE = {"marketer", "analyst", "integration"}


class RetailerSerializer(RowSerializer):
    class Meta:
        model = Retailer
        fields = ["id", "slug", "name", "network", "time_zone", "currency", "is_active"]


class Retailers(ReadOnlyRows):
    """Retailers that sell advertising."""

    queryset = Retailer.objects.all()
    serializer_class = RetailerSerializer
    filterset_fields = ["network", "is_active"]


class BrandSerializer(RowSerializer):
    class Meta:
        model = Brand
        fields = ["id", "slug", "name", "manufacturer", "currency", "is_active"]


class Brands(ReadOnlyRows):
    """The brands you act for."""

    queryset = Brand.objects.all()
    serializer_class = BrandSerializer


class SKUSerializer(RowSerializer):
    class Meta:
        model = SKUCatalog
        fields = [
            "id",
            "brand",
            "sku",
            "name",
            "gtin14",
            "department",
            "category",
            "product_type",
            "package_size",
            "price",
            "currency",
            "margin",
            "facts",
            "is_active",
        ]

    def validate_gtin14(self, value: str) -> str:
        told = identifiers.examine_one(value) if value else {"valid": True, "gtin14": ""}
        if not told["valid"]:
            raise serializers.ValidationError(f"{value}: {told['reason']}.")
        return str(told["gtin14"])


class SKUs(WritableRows):
    """Products of your brands."""

    queryset = SKUCatalog.objects.select_related("brand")
    serializer_class = SKUSerializer
    change_roles = PEOPLE
    filterset_fields = ["sku", "gtin14", "category", "is_active"]


class OutcomeSerializer(serializers.ModelSerializer):
    class Meta:
        model = MetricOutcome
        fields = ["metric", "window_days", "interaction", "model", "scope", "sales_channel", "value"]


class MetricSerializer(RowSerializer):
    outcomes = OutcomeSerializer(many=True, read_only=True, source="read_outcomes")
    extracted_at = serializers.DateTimeField(source="taken_at", read_only=True)

    class Meta:
        model = PerformanceMetric
        fields = [
            "id",
            "brand",
            "retailer",
            "network",
            "account_id",
            "grain",
            "ad_product",
            "campaign_id",
            "campaign_name",
            "ad_group_id",
            "ad_group_name",
            "ad_id",
            "product_id_type",
            "product_id",
            "gtin14",
            "keyword",
            "search_term",
            "match_type",
            "placement",
            "channel",
            "period_start",
            "period_end",
            "hour",
            "time_zone",
            "currency",
            "impressions",
            "viewable_impressions",
            "clicks",
            "spend",
            "spend_assumed",
            "is_final",
            "file_sha256",
            "row_number",
            "mapping_version",
            "extracted_at",
            "outcomes",
        ]


class Metrics(ReadOnlyRows):
    """Harmonized performance at every grain. To add values take ONE grain; ``summary`` does."""

    queryset = (
        PerformanceMetric.objects.select_related("brand", "retailer", "load")
        .defer("load__result", "load__log", "load__config")
        .prefetch_related(Prefetch("outcomes", to_attr="read_outcomes"))
    )
    serializer_class = MetricSerializer
    filterset_fields = ["network", "grain", "campaign_id", "channel", "currency", "period_start", "is_final"]

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "convert_to", str, description="ISO 4217 code: adds the spend in one currency, by dated rates"
            )
        ],
        responses=OpenApiTypes.OBJECT,
    )
    @action(detail=False)
    def summary(self, request: Request) -> Response:
        """Totals that count no cent twice, by currency, and where grains of one account disagree."""
        metrics = self.filter_queryset(self.get_queryset())
        found = services.summary(metrics)
        if to := request.query_params.get("convert_to"):
            found["converted"] = services.converted(metrics, to)
        return Response(found)


class FeedSerializer(RowSerializer):
    class Meta:
        model = FeedLoad
        fields = [
            *RUN_FIELDS,
            "retailer",
            "mapping_version",
            "file_name",
            "file_sha256",
            "extracted_at",
            "grain",
            "period_start",
            "period_end",
            "rows_read",
            "rows_accepted",
            "rows_quarantined",
            "rows_warned",
            "result",
        ]


class FeedWish(serializers.Serializer):
    """A file to load, and how to read it."""

    brand = Reference(queryset=Brand.objects.all())
    retailer = Reference(queryset=Retailer.objects.all())
    file = serializers.FileField(allow_empty_file=False)
    mapping = serializers.CharField(
        help_text="network/report of a shipped mapping, the id of one of yours, or 'catalogue' for a file of products"
    )
    as_of = serializers.DateTimeField(required=False)
    period = serializers.RegexField(r"^\d{4}-\d{2}-\d{2}:\d{4}-\d{2}-\d{2}$", required=False)
    repair = serializers.BooleanField(
        default=False, help_text="of a catalogue: whether lost zeros and check digits of its numbers may come back"
    )

    def validate_mapping(self, value: str) -> FeedMapping | str:
        if value == catalogue.NAME:
            return value
        if mappings.NAME.match(value):
            mappings.shipped(value)
            return value
        found = _own_mapping(self.context["request"].user, value)
        if found is None:
            raise serializers.ValidationError(f"There is no mapping '{value[:80]}' that you may use.")
        return found


def _own_mapping(user: Any, value: str) -> FeedMapping | None:
    from rmn.lib.rest import address

    return FeedMapping.objects.visible_to(user).filter(address(FeedMapping, value)).first()


class Feeds(ReadOnlyRows):
    """Report files: POST one as multipart, and follow its load."""

    queryset = FeedLoad.objects.select_related("brand", "retailer")
    serializer_class = FeedSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "grain", "file_sha256"]
    parser_classes = [MultiPartParser]

    @extend_schema(request=FeedWish, responses={202: OpenApiTypes.OBJECT})
    def create(self, request: Request) -> Response:
        wish = FeedWish(data=request.data, context={"request": request})
        wish.is_valid(raise_exception=True)
        asked = wish.validated_data
        upload = asked["file"]
        run = services.request_feed_load(
            brand=asked["brand"],
            retailer=asked["retailer"],
            file_name=upload.name,
            chunks=upload.chunks(),
            mapping=asked["mapping"],
            as_of=asked["as_of"].isoformat() if asked.get("as_of") else None,
            period=asked.get("period"),
            repair=asked["repair"],
            by=request.user,
        )
        return self.accepted(run)

    @extend_schema(request=None, responses={202: OpenApiTypes.OBJECT})
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, **_: Any) -> Response:
        """Read the kept file again, after its mapping was corrected."""
        return self.accepted(services.request_replay(load=self.get_object(), by=request.user))


class FeedMappingSerializer(RowSerializer):
    text = serializers.CharField(source="yaml", trim_whitespace=False, max_length=mappings.MAX_MAPPING_BYTES)

    class Meta:
        model = FeedMapping
        fields = [
            "id",
            "brand",
            "retailer",
            "network",
            "report",
            "version",
            "sha256",
            "is_current",
            "created_at",
            "text",
        ]
        read_only_fields = ["network", "report", "version", "sha256", "is_current", "created_at"]
        extra_kwargs = {"brand": {"required": True, "allow_null": False}}


class FeedMappings(ReadOnlyRows):
    """How reports are read; a POST adds a version, none is ever changed."""

    queryset = FeedMapping.objects.select_related("brand", "retailer")
    serializer_class = FeedMappingSerializer
    change_roles = PEOPLE
    filterset_fields = ["network", "report", "is_current"]

    def create(self, request: Request) -> Response:
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        row = services.keep_mapping(
            brand=asked.validated_data["brand"],
            retailer=asked.validated_data.get("retailer"),
            text=asked.validated_data["yaml"],
            by=request.user,
        )
        return Response(self.get_serializer(row).data, status=status.HTTP_201_CREATED)


class QuarantineSerializer(RowSerializer):
    load = serializers.SerializerMethodField()

    class Meta:
        model = QuarantinedRow
        fields = [
            "id",
            "brand",
            "retailer",
            "load",
            "file_sha256",
            "row_number",
            "column",
            "rule",
            "message",
            "raw",
            "status",
            "created_at",
        ]

    @extend_schema_field(OpenApiTypes.UUID)
    def get_load(self, row: Any) -> str:
        return str(row.load_id)


class Quarantine(ReadOnlyRows):
    """Rows that were refused, raw, with the reason."""

    queryset = QuarantinedRow.objects.select_related("brand", "retailer")
    serializer_class = QuarantineSerializer
    change_roles = PEOPLE
    filterset_fields = ["status", "rule", "file_sha256"]

    @extend_schema(request=None, responses=QuarantineSerializer)
    @action(detail=True, methods=["post"])
    def dismiss(self, request: Request, **_: Any) -> Response:  # noqa: ARG002
        """Say that this row needs no answer."""
        row = services.dismiss(self.get_object())
        return Response(self.get_serializer(row).data)


class PolicyRuleSerializer(RowSerializer):
    class Meta:
        model = PolicyRule
        fields = [
            "id",
            "brand",
            "code",
            "version",
            "network",
            "severity",
            "kind",
            "spec",
            "message",
            "fix",
            "source",
            "owner",
            "valid_from",
            "valid_to",
            "is_active",
        ]


class PolicyRules(ReadOnlyRows):
    """Rules kept in the console; ``shipped`` lists those that come with the product."""

    queryset = PolicyRule.objects.select_related("brand")
    serializer_class = PolicyRuleSerializer
    filterset_fields = ["network", "code", "severity", "is_active"]

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=False)
    def shipped(self, request: Request) -> Response:  # noqa: ARG002
        """The shipped rules with their version."""
        held = policy.shipped()
        rows = [
            {
                "rule": r.id,
                "on": r.on,
                "severity": r.severity,
                "kind": r.kind,
                "message": r.message,
                "fix": r.fix,
                "source": r.source,
            }
            for r in held.rules
        ]
        return Response({"rule_set_version": held.version, "rules": rows})


class AuditSerializer(RowSerializer):
    class Meta:
        model = AuditEntry
        fields = [
            "id",
            "brand",
            "chain",
            "sequence",
            "at",
            "actor",
            "action",
            "subject_type",
            "subject_id",
            "payload",
            "previous_hash",
            "hash",
        ]


class Audit(ReadOnlyRows):
    """What was done, by whom, chained by hash."""

    queryset = AuditEntry.objects.select_related("brand")
    serializer_class = AuditSerializer
    filterset_fields = ["action", "actor", "subject_id"]


class WebhookSerializer(RowSerializer):
    events = serializers.ListField(child=serializers.CharField(max_length=80), required=False, help_text="empty: all")

    class Meta:
        model = Webhook
        fields = [
            "id",
            "brand",
            "url",
            "events",
            "is_active",
            "last_status",
            "last_error",
            "last_sent_at",
            "created_at",
        ]
        read_only_fields = ["last_status", "last_error", "last_sent_at", "created_at"]

    def validate_url(self, value: str) -> str:
        outbound.check(value)
        return value

    def validate_brand(self, value: Brand) -> Brand:
        if self.instance is not None and self.instance.brand_id != value.pk:
            raise serializers.ValidationError("A webhook stays its brand's: set up another.")
        if not roles(self.context["request"].user, value) & {"integration", "ops"}:
            raise PermissionDenied
        return value


class NewWebhookSerializer(WebhookSerializer):
    secret = serializers.CharField(read_only=True, help_text="whsec_...; shown this once")

    class Meta(WebhookSerializer.Meta):
        fields = [*WebhookSerializer.Meta.fields, "secret"]


class Webhooks(WritableRows):
    """Addresses that are told of what happens: signed as Standard Webhooks have it, tried ten times over half a day."""

    queryset = Webhook.objects.select_related("brand")
    serializer_class = WebhookSerializer
    change_roles = {"integration"}
    filterset_fields = ["is_active"]

    @extend_schema(request=WebhookSerializer, responses={201: NewWebhookSerializer})
    def create(self, request: Request) -> Response:
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        hook = Webhook(**asked.validated_data)
        hook.secret = services.set_up_webhook(hook)  # type: ignore[attr-defined]
        try:
            with transaction.atomic():
                hook.save()
        except IntegrityError:
            raise serializers.ValidationError({"url": ["This brand has a webhook at this address already."]}) from None
        told = NewWebhookSerializer(hook).data
        return Response(told, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})

    @extend_schema(request=None, responses={202: OpenApiTypes.OBJECT})
    @action(detail=True, methods=["post"])
    def ping(self, request: Request, **_: Any) -> Response:  # noqa: ARG002
        """Send a message that says nothing, to try the address and the secret."""
        return self.accepted(webhooks.ping(self.get_object()))


class DeliverySerializer(RowSerializer):
    webhook = Reference(read_only=True)

    class Meta:
        model = Delivery
        fields = [*RUN_FIELDS, "webhook", "event", "body", "response_status"]


class Deliveries(ReadOnlyRows):
    """Messages to webhooks; POST ``runs/{id}/retry/`` sends a failed one again."""

    queryset = Delivery.objects.select_related("brand", "webhook")
    serializer_class = DeliverySerializer
    filterset_fields = ["status", "event"]


class TextToCheck(serializers.Serializer):
    """One text for one place of one network."""

    network = serializers.CharField(max_length=40)
    field = serializers.CharField(max_length=40, default="headline")
    text = serializers.CharField(allow_blank=True, max_length=20_000, trim_whitespace=False)
    product = serializers.CharField(allow_blank=True, max_length=240, default="")
    facts = serializers.DictField(required=False)
    brand = Reference(queryset=Brand.objects.all(), required=False)


class CheckText(Door):
    """May this text be published there, and if not, why and what to do."""

    permission_classes = [IsAuthenticated]

    @extend_schema(request=TextToCheck, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request) -> Response:
        asked = TextToCheck(data=request.data, context={"request": request})
        asked.is_valid(raise_exception=True)
        return Response(services.check_text(**asked.validated_data).row())


class TextToRedact(serializers.Serializer):
    """A text that may hold personal data, and whose key makes the tags."""

    brand = Reference(queryset=Brand.objects.all())
    text = serializers.CharField(allow_blank=True, max_length=100_000, trim_whitespace=False)


class RedactText(Door):
    """Personal data found and masked by tags of the brand's key. Nothing is kept."""

    permission_classes = [IsAuthenticated]

    @extend_schema(request=TextToRedact, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request) -> Response:
        asked = TextToRedact(data=request.data, context={"request": request})
        asked.is_valid(raise_exception=True)
        found = services.redact(asked.validated_data["brand"], asked.validated_data["text"])
        return Response({"redacted": found.text, "entities": [one.row() for one in found.entities]})


resources: dict[str, Any] = {  # address -> viewset
    "retailers": Retailers,
    "brands": Brands,
    "skus": SKUs,
    "metrics": Metrics,
    "feeds": Feeds,
    "feed-mappings": FeedMappings,
    "quarantine": Quarantine,
    "policy-rules": PolicyRules,
    "audit": Audit,
    "webhooks": Webhooks,
    "webhook-deliveries": Deliveries,
}
paths: list[Any] = [  # single endpoints
    path("texts/check", CheckText.as_view(), name="check-text"),
    path("texts/redact", RedactText.as_view(), name="redact-text"),
]
