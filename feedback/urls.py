from __future__ import annotations

from django.urls import path

from feedback import views

urlpatterns = [
    path("feedback/", views.choose, name="feedback"),
    path("feedback/statistics/", views.statistics, name="feedback-statistics"),
    path("feedback/export/", views.export, name="feedback-export"),
    path("feedback/export/<uuid:pk>/file", views.export_file, name="feedback-export-file"),
    path("feedback/answers/<uuid:pk>/undo", views.undo, name="undo-answer"),
    path("feedback/answers/<uuid:pk>/correct", views.correct, name="correct-better"),
    path("feedback/questions/<uuid:pk>/renew", views.renew, name="renew-question"),
    path("feedback/questions/<uuid:pk>/release", views.release, name="release-question"),
    path("feedback/questions/<uuid:pk>/difference", views.difference, name="wording-difference"),
    path("feedback/<slug:slug>/<slug:task>/", views.review, name="review"),
    path("feedback/<slug:slug>/<slug:task>/ask", views.ask, name="ask-about-drafts"),
    path("feedback/<slug:slug>/<slug:task>/team/", views.team, name="team"),
    path("feedback/<slug:slug>/<slug:task>/answers/", views.my_answers, name="my-answers"),
    path("dashboard", views.statistics, name="dashboard"),
]
