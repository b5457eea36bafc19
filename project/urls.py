"""Paths of the control plane. The data plane (`/v1/execute` and the pass-throughs) and the paths for machines are answered
before Django sees them; see `project.asgi`."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

admin.site.site_header = "Tollgate"
admin.site.site_title = "Tollgate"
admin.site.index_title = "Operations"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="tollgate:usage")),
    path("admin/", admin.site.urls),
    path("v1/", include("billing.api_urls")),
    path("portal/", include("billing.portal.urls")),
]
