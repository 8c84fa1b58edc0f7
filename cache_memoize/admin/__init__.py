"""The admin's pages: the list of memoized functions, and one function with its actions.

Every action is a POST of its own, needs the permission ``invalidate_memoizedfunction``,
and is in the admin's log, without the arguments of the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters

from ..describe import (
    FIGURES,
    FunctionInfo,
    describe_dependencies,
    describe_error,
    describe_options,
    describe_totals,
    list_functions,
)
from ..models import MemoizedFunction
from ..process import printable
from ..protocol import snapshots
from . import overview
from .actions import ACTIONS, CallForm, run_action
from .overview import COLUMNS, Overview

__all__ = ["MemoizedFunctionAdmin"]

View = Callable[..., HttpResponse]

if TYPE_CHECKING:
    Base = admin.ModelAdmin[MemoizedFunction]
else:
    Base = admin.ModelAdmin


def _make_header(
    column: overview.Column, ordered: overview.Column, falls: bool, words: str
) -> dict[str, Any]:
    """Return a column's head: a link that sorts by it, or reverses the order."""
    here = column is ordered
    fall = not falls if here else column.is_number
    query = {"o": f"-{column.name}" if fall else column.name}
    return {
        "column": column,
        "order": ("descending" if falls else "ascending") if here else "",
        "link": "?" + urlencode({**query, **({"q": words} if words else {})}),
    }


def _make_object(info: FunctionInfo) -> MemoizedFunction:
    return MemoizedFunction(id=info.id, path=printable(info.path))


def _make_printable(response: HttpResponse) -> None:
    text = response.content.decode(response.charset)
    response.content = printable(text, keep="\t\n\r").encode(response.charset)


@admin.register(MemoizedFunction)
class MemoizedFunctionAdmin(Base):
    """The pages of the functions that this process has imported; no rows of a table."""

    def get_urls(self) -> list[URLPattern]:
        pages: list[tuple[str, View, str]] = [
            ("", self.changelist_view, "changelist"),
            ("<str:object_id>/history/", self.history_view, "history"),
            ("<str:object_id>/", self.function_view, "change"),
            ("<str:object_id>/<str:name>/", self.action_view, "action"),
        ]
        private = sensitive_post_parameters("arguments")
        return [
            path(
                route,
                snapshots.without_atomic_requests(
                    private(self.admin_site.admin_view(view))
                ),
                name=f"cache_memoize_memoizedfunction_{name}",
            )
            for route, view, name in pages
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_invalidate_permission(self, request: HttpRequest) -> bool:
        may = request.user.has_perm("cache_memoize.invalidate_memoizedfunction")
        return may and self.has_view_permission(request)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: Any = None
    ) -> MemoizedFunction | None:
        info = overview.find_function(object_id)
        return None if info is None else _make_object(info)

    def changelist_view(
        self, request: HttpRequest, extra_context: Any = None
    ) -> HttpResponse:
        """Show the list of all functions."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            seen = Overview(list_functions())
        except ImproperlyConfigured as error:
            messages.error(request, describe_error(error))
            seen = Overview([])
        words, order = request.GET.get("q", ""), request.GET.get("o", "name")
        rows = seen.search_rows(words)
        name, falls = order.removeprefix("-"), order.startswith("-")
        column = next((c for c in COLUMNS if c.name == name), COLUMNS[0])
        rows.sort(key=lambda row: row.path)
        rows.sort(key=column.value, reverse=falls)
        more = {
            "title": _("Memoized functions"),
            "rows": rows,
            "totals": describe_totals(overview.add_totals(rows)),
            "headers": [_make_header(c, column, falls, words) for c in COLUMNS],
            "words": words,
            "order": order,
            "seen": seen,
        }
        return self._render_page(request, "functions", more)

    def function_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show one function."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        info = overview.find_function(object_id)
        if info is None:
            return self._render_unknown(request)
        return self._render_function(request, info, CallForm(info, request.user))

    def action_view(
        self, request: HttpRequest, object_id: str, name: str
    ) -> HttpResponse:
        """Run an action, and answer with the page of the function: the arguments stay
        in their field, and are in no address and no session."""
        if not self.has_invalidate_permission(request):
            raise PermissionDenied
        info = overview.find_function(object_id)
        if info is None or name not in ACTIONS:
            return self._render_unknown(request)
        if request.method != "POST":
            text = _("Use the buttons on the page of the function.")
            refused = self._render_refusal(request, _("Nothing was done"), text, 405)
            refused["Allow"] = "POST"
            return refused
        form = CallForm(info, request.user, request.POST)
        call: tuple[Any, Any] = ((), {})
        if name != "invalidate-all":
            if not form.is_valid():
                return self._render_function(request, info, form)
            call = form.cleaned_data["arguments"]
        outcome = run_action(ACTIONS[name], info, *call)
        messages.add_message(request, outcome.level, outcome.message)
        self.log_change(request, _make_object(info), outcome.entry)
        if name == "invalidate-all":
            back = f"{self.admin_site.name}:cache_memoize_memoizedfunction_change"
            return HttpResponseRedirect(reverse(back, args=[object_id]))
        return self._render_function(request, info, form)

    def _render_function(
        self, request: HttpRequest, info: FunctionInfo, form: CallForm
    ) -> HttpResponse:
        seen = Overview([info])
        more = {
            "title": info.path,
            "info": info,
            "row": seen.rows[0],
            "own": describe_totals(info.stats.totals()),
            "columns": FIGURES,
            "form": form,
            "actions": ACTIONS,
            "seen": seen,
            "namesakes": overview.count_namesakes(info),
            "options": describe_options(info),
            "dependencies": describe_dependencies(info),
        }
        return self._render_page(request, "function", more)

    def _render_unknown(self, request: HttpRequest) -> HttpResponse:
        text = _(
            "It may have been renamed, or the process that answers has not imported "
            "its module. Open the list again."
        )
        return self._render_refusal(request, _("This function is not known"), text, 404)

    def _render_refusal(
        self, request: HttpRequest, title: str, text: str, status: int
    ) -> HttpResponse:
        response = self._render_page(request, "refused", {"title": title, "text": text})
        response.status_code = status
        return response

    def _render_page(
        self, request: HttpRequest, name: str, more: dict[str, Any]
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "may_invalidate": self.has_invalidate_permission(request),
            **more,
        }
        template = f"admin/cache_memoize/memoizedfunction/{name}.html"
        response = TemplateResponse(request, template, context)
        response.add_post_render_callback(_make_printable)
        return response
