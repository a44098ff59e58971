"""What ops staff change that belongs to no app: people, schedules, lockouts, second factors."""

from __future__ import annotations

import secrets
from typing import Any

from axes.models import AccessAttempt
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import PasswordResetForm
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest
from django_celery_beat.admin import CrontabScheduleAdmin as BeatCrontabScheduleAdmin
from django_celery_beat.admin import PeriodicTaskAdmin as BeatPeriodicTaskAdmin
from django_celery_beat.admin import PeriodicTaskForm, TaskSelectWidget
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from django_otp.plugins.otp_totp.models import TOTPDevice
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from retailers.admin import Audited
from retailers.models import Membership
from rmn.models import Heartbeat

for model in (
    User,
    Group,
    PeriodicTask,
    IntervalSchedule,
    CrontabSchedule,
    SolarSchedule,
    ClockedSchedule,
    AccessAttempt,
    TOTPDevice,
):
    if admin.site.is_registered(model):
        admin.site.unregister(model)


class Memberships(TabularInline):
    model = Membership
    extra = 0
    fields = ["role", "brand", "retailer"]


@admin.register(User)
class PersonAdmin(Audited, UserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    inlines = [Memberships]
    list_display = ["username", "email", "is_staff", "is_active", "last_login"]
    actions = ["invite"]

    @admin.action(description="Send an invitation by e-mail")
    def invite(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """A link to choose a password; works once, for three days."""
        without = [person.username for person in queryset if not person.email]
        for person in queryset.exclude(email=""):
            if not person.has_usable_password():
                person.set_password(secrets.token_urlsafe(24))
                person.save(update_fields=["password"])
            form = PasswordResetForm({"email": person.email})
            if form.is_valid():
                form.save(
                    request=request,
                    use_https=request.is_secure(),
                    subject_template_name="registration/invitation_subject.txt",
                    email_template_name="registration/invitation_email.txt",
                )
        self.message_user(
            request, "Invited." if not without else f"No e-mail address: {', '.join(without)}. The others are invited."
        )

    def get_inlines(self, request: HttpRequest, obj: Any = None) -> Any:  # noqa: ARG002
        return self.inlines if obj else []


@admin.register(Group)
class RoleAdmin(Audited, GroupAdmin, ModelAdmin):
    pass


class TaskSelect(UnfoldAdminSelectWidget, TaskSelectWidget):
    pass


class ScheduledTaskForm(PeriodicTaskForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["task"].widget = UnfoldAdminTextInputWidget()
        self.fields["regtask"].widget = TaskSelect()


@admin.register(PeriodicTask)
class ScheduleAdmin(Audited, BeatPeriodicTaskAdmin, ModelAdmin):
    form = ScheduledTaskForm


@admin.register(IntervalSchedule)
class IntervalAdmin(ModelAdmin):
    pass


@admin.register(CrontabSchedule)
class CrontabAdmin(BeatCrontabScheduleAdmin, ModelAdmin):
    pass


@admin.register(SolarSchedule)
class SolarAdmin(ModelAdmin):
    pass


@admin.register(ClockedSchedule)
class ClockedAdmin(ModelAdmin):
    pass


@admin.register(AccessAttempt)
class LockoutAdmin(Audited, ModelAdmin):
    list_display = ["attempt_time", "username", "ip_address", "failures_since_start"]
    search_fields = ["username", "ip_address"]


@admin.register(TOTPDevice)
class SecondFactorAdmin(Audited, ModelAdmin):
    list_display = ["user", "name", "confirmed"]
    search_fields = ["user__username"]
    exclude = ["key"]
    raw_id_fields = ["user"]

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False


@admin.register(Heartbeat)
class HeartbeatAdmin(ModelAdmin):
    list_display = ["name", "at"]

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False
