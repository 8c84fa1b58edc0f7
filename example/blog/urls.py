from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path

from . import views

urlpatterns = [
    path("", views.front, name="front"),
    path("<int:pk>/", views.read, name="read"),
    path("<int:pk>/table/", views.read_by_table, name="read-by-table"),
    path("<int:pk>/edit/", views.edit, name="edit"),
    path("<int:pk>/refresh/", views.refresh, name="refresh"),
    path("admin/", admin.site.urls),
    *staticfiles_urlpatterns(),  # with DEBUG only; a real site has a web server for it
]
