"""Rows for tests; a trait names a moment of life: CampaignFactory(live=True)."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import factory
from django.contrib.auth.models import User
from factory.django import DjangoModelFactory

from agents.models import Adapter, AgentRun, CleanRoomConnection, CleanRoomQuery, Forecast, ReflectionLog
from campaigns.models import (
    AudienceSegment,
    BudgetPlan,
    Campaign,
    CopyEvidence,
    CurveFit,
    Experiment,
    Recommendation,
    ResponseCurve,
)
from feedback.models import Export, Feedback, ReviewTask
from retailers.models import (
    AuditEntry,
    Brand,
    Delivery,
    FeedLoad,
    FeedMapping,
    Membership,
    PerformanceMetric,
    PolicyRule,
    QuarantinedRow,
    Retailer,
    SKUCatalog,
    Webhook,
)
from rmn.models import SavedView
from training.models import Dataset, Evaluation, Lesson, TrainingRun, Withdrawal


class RetailerFactory(DjangoModelFactory):
    class Meta:
        model = Retailer
        django_get_or_create = ("slug",)

    slug = factory.Sequence(lambda n: f"retailer-{n}")
    name = factory.LazyAttribute(lambda o: o.slug.replace("-", " ").title())
    network = "instacart"


class BrandFactory(DjangoModelFactory):
    class Meta:
        model = Brand
        django_get_or_create = ("slug",)

    slug = factory.Sequence(lambda n: f"brand-{n}")
    name = factory.LazyAttribute(lambda o: o.slug.replace("-", " ").title())


class UserFactory(DjangoModelFactory):
    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"person{n}")
    password = factory.django.Password("correct horse")


class MembershipFactory(DjangoModelFactory):
    class Meta:
        model = Membership

    user = factory.SubFactory(UserFactory)
    brand = factory.SubFactory(BrandFactory)
    role = Membership.Role.MARKETER


class Owned(DjangoModelFactory):
    class Meta:
        abstract = True

    brand = factory.SubFactory(BrandFactory)


class AtRetailer(Owned):
    class Meta:
        abstract = True

    retailer = factory.SubFactory(RetailerFactory)


class SKUFactory(Owned):
    class Meta:
        model = SKUCatalog

    sku = factory.Sequence(lambda n: f"SKU-{n}")
    name = factory.Sequence(lambda n: f"Sparkling water {n}")
    product_type = "Sparkling water"
    package_size = "12 oz"


class FeedLoadFactory(AtRetailer):
    class Meta:
        model = FeedLoad

    file_name = "report.csv"
    file_sha256 = factory.Sequence(lambda n: f"{n:064x}")


class FeedMappingFactory(AtRetailer):
    class Meta:
        model = FeedMapping

    network = "instacart"
    report = factory.Sequence(lambda n: f"report_{n}")
    yaml = "mapping: instacart/report"
    sha256 = "0" * 64


class QuarantinedRowFactory(AtRetailer):
    class Meta:
        model = QuarantinedRow

    load = factory.SubFactory(
        FeedLoadFactory, brand=factory.SelfAttribute("..brand"), retailer=factory.SelfAttribute("..retailer")
    )
    file_sha256 = "0" * 64
    row_number = factory.Sequence(lambda n: n)
    column = "Date"
    rule = "bad_date"
    message = "'soon' is no date"
    raw = '{"Date": "soon"}'


class PerformanceMetricFactory(AtRetailer):
    class Meta:
        model = PerformanceMetric

    row_key = factory.Sequence(lambda n: f"{n:064x}")
    row_hash = factory.Sequence(lambda n: f"{n:064x}")
    network = "instacart"
    grain = "campaign"
    campaign_id = "c1"
    period_start = period_end = dt.date(2026, 3, 1)
    currency = "USD"
    impressions = 1000
    clicks = 20
    spend = Decimal("12.50")
    file_sha256 = "0" * 64
    row_number = factory.Sequence(lambda n: n)
    mapping_version = "instacart/ads@1+00000000"
    extracted_at = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


class AudienceFactory(AtRetailer):
    class Meta:
        model = AudienceSegment

    name = factory.Sequence(lambda n: f"Lapsed buyers {n}")
    reach_estimate = 12_000


class CampaignFactory(AtRetailer):
    class Meta:
        model = Campaign

    class Params:
        live = factory.Trait(status=Campaign.Status.LIVE)

    name = factory.Sequence(lambda n: f"Spring launch {n}")
    tactic = "search"
    budget = Decimal("10000")


class CurveFitFactory(AtRetailer):
    class Meta:
        model = CurveFit


class ResponseCurveFactory(AtRetailer):
    class Meta:
        model = ResponseCurve

    arm = factory.Sequence(lambda n: f"arm-{n}")
    kind = "log"
    scale = 900.0
    half = 120.0


class BudgetPlanFactory(AtRetailer):
    class Meta:
        model = BudgetPlan

    name = factory.Sequence(lambda n: f"Plan {n}")
    total_budget = Decimal("50000")


class ExperimentFactory(AtRetailer):
    class Meta:
        model = Experiment

    name = factory.Sequence(lambda n: f"Holdout {n}")
    kind = "geo"


class RecommendationFactory(AtRetailer):
    class Meta:
        model = Recommendation

    task = "creative"
    title = factory.Sequence(lambda n: f"Headline {n}")
    text = factory.Sequence(lambda n: f"Sparkling water, {n} oz")
    prompt = "Write a headline under 50 characters for sparkling water."
    source = Recommendation.Source.AGENT


class CopyEvidenceFactory(AtRetailer):
    class Meta:
        model = CopyEvidence

    recommendation = factory.SubFactory(
        RecommendationFactory, brand=factory.SelfAttribute("..brand"), retailer=factory.SelfAttribute("..retailer")
    )
    note = "Tested on 80 people in 2026"
    link = "https://example.com/report"


class FeedbackFactory(AtRetailer):
    class Meta:
        model = Feedback

    task = "creative"
    kind = Feedback.Kind.THUMB
    value = 1
    recommendation = factory.SubFactory(
        RecommendationFactory, brand=factory.SelfAttribute("..brand"), retailer=factory.SelfAttribute("..retailer")
    )


class ReviewTaskFactory(AtRetailer):
    class Meta:
        model = ReviewTask

    task = "creative"
    kind = Feedback.Kind.PAIR
    recommendation = factory.SubFactory(
        RecommendationFactory, brand=factory.SelfAttribute("..brand"), retailer=factory.SelfAttribute("..retailer")
    )
    other = factory.SubFactory(
        RecommendationFactory, brand=factory.SelfAttribute("..brand"), retailer=factory.SelfAttribute("..retailer")
    )


class ExportFactory(Owned):
    class Meta:
        model = Export

    task = "creative"
    format = "trl"


class AgentRunFactory(AtRetailer):
    class Meta:
        model = AgentRun

    goal = "Plan the next quarter"


class SavedViewFactory(DjangoModelFactory):
    class Meta:
        model = SavedView
        exclude = ["brand"]

    brand = None  # it is a person's own
    user = factory.SubFactory("tests.factories.UserFactory")
    name = "Live"
    path = "/admin/campaigns/campaign/"


class ReflectionFactory(AtRetailer):
    class Meta:
        model = ReflectionLog

    context = "budgeting"


class ForecastFactory(AtRetailer):
    class Meta:
        model = Forecast

    statement = "Sales rise by at least 5 %"
    metric = "lift_percent"
    comparison = ">="
    value = 5.0
    probability = 0.7
    due = dt.date(2026, 12, 31)


class AdapterFactory(AtRetailer):
    class Meta:
        model = Adapter

    task = "creative"
    digest = factory.Sequence(lambda n: f"{n:064x}")
    base_model = "SmolLM2-135M-Instruct"


class DatasetFactory(AtRetailer):
    class Meta:
        model = Dataset

    task = "creative"
    kind = "dpo"


class TrainingRunFactory(AtRetailer):
    class Meta:
        model = TrainingRun

    task = "creative"
    method = "sft"


class EvaluationFactory(AtRetailer):
    class Meta:
        model = Evaluation

    task = "creative"
    suite = "creative"


class LessonFactory(AtRetailer):
    class Meta:
        model = Lesson

    task = "creative"
    reason = "asked for by ops"


class WithdrawalFactory(Owned):
    class Meta:
        model = Withdrawal

    reason = "left the company"


class CleanRoomConnectionFactory(AtRetailer):
    class Meta:
        model = CleanRoomConnection

    name = factory.Sequence(lambda n: f"Room {n}")
    endpoint = "https://room.example.com/"


class CleanRoomQueryFactory(Owned):
    class Meta:
        model = CleanRoomQuery

    connection = factory.SubFactory(CleanRoomConnectionFactory, brand=factory.SelfAttribute("..brand"))
    template = "reach"


class PolicyRuleFactory(Owned):
    class Meta:
        model = PolicyRule

    code = factory.Sequence(lambda n: f"OWN-{n}")
    network = "instacart"
    severity = PolicyRule.Severity.BLOCK
    kind = "lexicon"
    message = "Not our word."


class AuditEntryFactory(Owned):
    class Meta:
        model = AuditEntry

    chain = factory.LazyAttribute(lambda o: o.brand.slug)
    sequence = factory.Sequence(lambda n: n + 1)
    at = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
    actor = "ops"
    action = "plan approved"
    previous_hash = "0" * 64
    hash = factory.Sequence(lambda n: f"{n:064x}")


class WebhookFactory(Owned):
    class Meta:
        model = Webhook

    url = factory.Sequence(lambda n: f"https://hooks.example.com/{n}")


class DeliveryFactory(Owned):
    class Meta:
        model = Delivery

    webhook = factory.SubFactory(WebhookFactory, brand=factory.SelfAttribute("..brand"))
    event = "plan_approved"
    body = factory.LazyFunction(dict)
