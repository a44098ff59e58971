from __future__ import annotations

from django.urls import path

from campaigns import views

urlpatterns = [
    path("budgets/", views.budgets, name="budget-plans"),
    path("budgets/<uuid:pk>", views.budget, name="budget-plan"),
    path("budgets/<uuid:pk>/compare", views.compare_budgets, name="compare-budgets"),
    path("experiments/", views.experiments, name="experiments"),
    path("experiments/<uuid:pk>", views.experiment, name="experiment"),
    path("experiments/<uuid:pk>/<slug:move>", views.move_experiment, name="move-experiment"),
]
