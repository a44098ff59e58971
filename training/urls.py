from __future__ import annotations

from django.urls import path

from training import views

urlpatterns = [
    path("training/", views.lessons, name="training"),
    path("training/lessons/<uuid:pk>", views.lesson, name="lesson"),
    path("training/runs/", views.training_runs, name="training-runs"),
    path("training/runs/<uuid:pk>", views.training_run, name="training-run"),
    path("training/data/", views.datasets, name="datasets"),
    path("training/data/<uuid:pk>", views.dataset, name="dataset"),
    path("training/answers/<uuid:pk>", views.answer, name="answer-lineage"),
    path("training/evaluations/", views.evaluations, name="evaluations"),
    path("training/evaluations/<uuid:pk>", views.evaluation, name="evaluation"),
    path("training/withdrawals/", views.withdrawals, name="withdrawals"),
    path("training/withdrawals/<uuid:pk>", views.withdrawal, name="withdrawal"),
    path("adapters/<uuid:pk>/card.md", views.model_card, name="model-card"),
]
