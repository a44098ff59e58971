from __future__ import annotations

from django.urls import path

from agents import views

urlpatterns = [
    path("budgets/<uuid:pk>/<slug:outcome>", views.decide_plan, name="decide-plan"),
    path("forecasts/", views.forecasts, name="forecasts"),
]
