from __future__ import annotations

from typing import Any

import pytest
from celery import shared_task
from django.apps import apps
from django.db import connection, models

from campaigns.models import Campaign
from retailers.models import Brand, PerformanceMetric
from rmn.lib import tenancy
from rmn.lib.tasks import TenantTask
from rmn.lib.tenancy import NoTenant
from tests.conftest import People
from tests.factories import CampaignFactory, PerformanceMetricFactory, RetailerFactory

pytestmark = pytest.mark.django_db


@shared_task(base=TenantTask)
def whose(fail: bool = False) -> str:
    if fail:
        raise RuntimeError("midway")
    return tenancy.current()


def test_a_stranger_sees_no_campaign(people: People) -> None:
    mine = CampaignFactory(brand=people.brand)
    assert list(Campaign.objects.visible_to(people.owner)) == [mine]
    assert list(Campaign.objects.visible_to(people.colleague)) == [mine]
    assert list(Campaign.objects.visible_to(people.ops)) == [mine]
    assert not Campaign.objects.visible_to(people.stranger).exists()


def test_somebody_narrowed_to_a_retailer_sees_that_retailer_alone(people: People) -> None:
    here = CampaignFactory(brand=people.brand, retailer=people.retailer)
    CampaignFactory(brand=people.brand, retailer=RetailerFactory())
    assert list(Campaign.objects.visible_to(people.narrowed)) == [here]


def test_nobody_sees_nothing(people: People) -> None:
    from django.contrib.auth.models import AnonymousUser

    CampaignFactory(brand=people.brand)
    assert not Campaign.objects.visible_to(AnonymousUser()).exists()
    assert not Brand.objects.for_user(AnonymousUser()).exists()


def test_somebody_who_left_sees_nothing(people: People) -> None:
    CampaignFactory(brand=people.brand)
    people.owner.is_active = False
    assert not Campaign.objects.visible_to(people.owner).exists()


def test_every_queryset_of_a_brands_rows_knows_who_may_see_them() -> None:
    for model in apps.get_models():
        if model._meta.app_label in ("retailers", "campaigns", "feedback", "agents", "training"):
            holds_brand = any(isinstance(f, models.ForeignKey) and f.name == "brand" for f in model._meta.fields)
            if (
                holds_brand
                and not model.__name__.startswith("Historical")
                and model.__name__ not in ("Membership", "AuditHead")
            ):
                assert hasattr(model._default_manager, "visible_to"), model


def test_a_task_without_a_tenant_fails() -> None:
    with pytest.raises(NoTenant):
        whose()


def test_a_task_acts_for_the_tenant_of_its_message_and_forgets_it(people: People) -> None:
    with tenancy.nobody():
        assert whose(tenant=str(people.brand.pk)) == str(people.brand.pk)
        with pytest.raises(RuntimeError):
            whose(fail=True, tenant=str(people.brand.pk))
        assert tenancy.current() == ""


@pytest.mark.skipif(connection.vendor != "postgresql", reason="row-level security is PostgreSQL's")
class TestRowLevelSecurity:
    @pytest.fixture(autouse=True)
    def as_a_role_that_owns_nothing(self, people: People) -> Any:
        PerformanceMetricFactory(brand=people.brand)
        PerformanceMetricFactory(brand=people.other)
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN CREATE ROLE rmn_test_app; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
            cursor.execute("GRANT USAGE ON SCHEMA public TO rmn_test_app")
            cursor.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO rmn_test_app")
            cursor.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO rmn_test_app")
            cursor.execute("SET LOCAL ROLE rmn_test_app")
        yield
        with connection.cursor() as cursor:
            cursor.execute("RESET ROLE")

    def test_a_forgotten_filter_shows_only_the_tenants_rows(self, people: People) -> None:
        with tenancy.acting_for([people.brand.pk]):
            assert {m.brand_id for m in PerformanceMetric.objects.all()} == {people.brand.pk}

    def test_without_a_tenant_there_is_nothing(self) -> None:
        with tenancy.nobody():
            assert not PerformanceMetric.objects.exists()

    def test_another_brands_row_cannot_be_written(self, people: People) -> None:
        from django.db import Error, transaction

        with (
            tenancy.acting_for([people.brand.pk]),
            pytest.raises(Error, match="row-level security"),
            transaction.atomic(),
        ):
            PerformanceMetricFactory(brand=people.other, retailer=people.retailer)

    def test_every_table_with_a_brand_has_the_wall(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)"
                " WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND c.column_name = 'brand_id'"
                " AND NOT EXISTS (SELECT 1 FROM pg_policies p WHERE p.tablename = c.table_name)"
            )
            assert {row[0] for row in cursor.fetchall()} <= {"retailers_membership", "retailers_historicalmembership"}

    def test_no_wall_is_asked_again_for_every_row(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT tablename, replace(qual, 'SELECT current_setting(', '') FROM pg_policies")
            walls = cursor.fetchall()
        assert len(walls) > 40
        assert not [
            name for name, qual in walls if "SELECT string_to_array(" not in qual or qual.count("current_setting(") > 1
        ]
