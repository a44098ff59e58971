from __future__ import annotations

from django.urls import path

from agents import views

urlpatterns = [
    path("budgets/<uuid:pk>/change", views.change_plan, name="change-plan"),
    path("budgets/<uuid:pk>/<slug:outcome>", views.decide_plan, name="decide-plan"),
    path("inbox/", views.inbox, name="inbox"),
    path("inbox/undo/<uuid:pk>", views.undo_decision, name="undo-decision"),
    path("inbox/experiment/<uuid:pk>/change", views.change_experiment, name="change-experiment"),
    path("inbox/<slug:kind>/<uuid:pk>/<slug:outcome>", views.decide_waiting, name="decide-waiting"),
    path("plans/", views.plans, name="plans"),
    path("plans/<uuid:pk>", views.plan, name="plan"),
    path("decisions/", views.reflections, name="reflections"),
    path("decisions/<uuid:pk>", views.reflection, name="reflection"),
    path("decisions/<uuid:pk>/<slug:move>", views.move_reflection, name="move-reflection"),
    path("forecasts/", views.forecasts, name="forecasts"),
    path("forecasts/<uuid:pk>", views.forecast, name="forecast"),
    path("forecasts/<uuid:pk>/<slug:move>", views.move_forecast, name="move-forecast"),
    path("adapters/", views.adapters, name="adapters"),
    path("adapters/<uuid:pk>", views.adapter, name="adapter"),
    path("adapters/<uuid:pk>/<slug:move>", views.move_adapter, name="move-adapter"),
    path("clean-rooms/", views.clean_rooms, name="clean-rooms"),
    path("clean-rooms/<uuid:pk>", views.clean_room, name="clean-room"),
    path("clean-rooms/questions/<uuid:pk>", views.clean_room_query, name="clean-room-query"),
    path("playground/", views.playground, name="playground"),
    path("playground/stream", views.playground_stream, name="playground-stream"),
]
