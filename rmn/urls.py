from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from agents import views as agents
from rmn import health, views

handler404, handler500 = views.not_found, views.broke_down
urlpatterns = [
    path("api/", include("rmn.api")),  # first: it is asked most, and each pattern before it would be tried
    path("", views.home, name="home"),
    path("runs/<uuid:pk>", views.run, name="run"),
    path("runs/<uuid:pk>/cancel", views.cancel_run, name="cancel-run"),
    path("runs/<uuid:pk>/retry", views.retry_run, name="retry-run"),
    path("login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("password/", auth.PasswordResetView.as_view(), name="password_reset"),
    path("password/sent/", auth.PasswordResetDoneView.as_view(), name="password_reset_done"),
    path("password/<uidb64>/<token>/", auth.PasswordResetConfirmView.as_view(), name="password_reset_confirm"),
    path("password/done/", auth.PasswordResetCompleteView.as_view(), name="password_reset_complete"),
    path("account/second-factor/", views.second_factor, name="second-factor"),
    # before the other steps of a test, which stand in campaigns: approvals are the agents'
    path("experiments/<uuid:pk>/approve", agents.approve_experiment, name="approve-experiment"),
    path("masked/", views.masked_data, name="masked-data"),
    path("console/views/", views.save_view, name="save-view"),
    path("console/views/<uuid:pk>/forget", views.forget_view, name="forget-view"),
    path("", include("retailers.urls")),
    path("", include("campaigns.urls")),
    path("", include("feedback.urls")),
    path("", include("agents.urls")),
    path("", include("training.urls")),
    path("favicon.ico", views.favicon),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("health/", health.page, name="health"),
    path("metrics", health.metrics),
    path(settings.ADMIN_PATH, admin.site.urls),
]
