from __future__ import annotations

from django.urls import path

from campaigns import views

urlpatterns = [
    path("budgets/", views.budgets, name="budget-plans"),
    path("budgets/<uuid:pk>", views.budget, name="budget-plan"),
    path("budgets/<uuid:pk>/compare", views.compare_budgets, name="compare-budgets"),
    path("copy/", views.copy_desk, name="copy"),
    path("copy/rules", views.copy_rules, name="copy-rules"),
    path("copy/evidence/<uuid:pk>", views.copy_evidence, name="copy-evidence"),
    path("copy/<uuid:pk>", views.copy_text, name="copy-text"),
    path("copy/<uuid:pk>/<slug:step>", views.copy_step, name="copy-step"),
    path("experiments/", views.experiments, name="experiments"),
    path("experiments/<uuid:pk>", views.experiment, name="experiment"),
    path("experiments/<uuid:pk>/<slug:move>", views.move_experiment, name="move-experiment"),
]
