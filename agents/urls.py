from __future__ import annotations

from django.urls import path

from agents import views

urlpatterns = [
    path("budgets/<uuid:pk>/<slug:outcome>", views.decide_plan, name="decide-plan"),
    path("forecasts/", views.forecasts, name="forecasts"),
    path("adapters/", views.adapters, name="adapters"),
    path("adapters/<uuid:pk>", views.adapter, name="adapter"),
    path("adapters/<uuid:pk>/<slug:move>", views.move_adapter, name="move-adapter"),
    path("playground/", views.playground, name="playground"),
    path("playground/stream", views.playground_stream, name="playground-stream"),
]
