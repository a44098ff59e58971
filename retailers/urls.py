from __future__ import annotations

from django.urls import path

from retailers import views

urlpatterns = [
    path("performance/", views.performance, name="performance"),
    path("feeds/", views.feeds, name="feeds"),
    path("feeds/upload", views.upload, name="feed-upload"),
    path("feeds/upload/check", views.check_upload, name="feed-check"),
    path("feeds/quarantine", views.quarantine, name="quarantine"),
    path("feeds/quarantine/answer", views.answer_quarantine, name="quarantine-answer"),
    path("audit/", views.audit_chain, name="audit"),
    path("metrics/<uuid:pk>", views.metric, name="metric"),
]
