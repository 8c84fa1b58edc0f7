from django.urls import path

from . import views

urlpatterns = [
    path("", views.front, name="front"),
    path("<int:pk>/", views.read, name="read"),
    path("<int:pk>/edit/", views.edit, name="edit"),
    path("<int:pk>/refresh/", views.refresh, name="refresh"),
]
