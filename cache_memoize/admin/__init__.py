"""The admin's pages: all memoized functions, one of them, and what can be done to it.

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

from ..models import MemoizedFunction
from ..planning import Function, plan_of, planned
from ..protocol import transactions
from . import overview, wording
from .actions import ACTIONS, CallForm, attempt
from .overview import COLUMNS, Overview

__all__ = ["MemoizedFunctionAdmin"]

View = Callable[..., HttpResponse]

if TYPE_CHECKING:
    Base = admin.ModelAdmin[MemoizedFunction]
else:
    Base = admin.ModelAdmin


def _object(function: Function) -> MemoizedFunction:
    return MemoizedFunction(id=overview.identity(function), path=function.path)


def _header(
    column: overview.Column, ordered: overview.Column, falls: bool, words: str
) -> dict[str, Any]:
    """A column's head, which is a link that sorts by it, or turns the order round."""
    here = column is ordered
    fall = not falls if here else column.is_number
    query = {"o": f"-{column.name}" if fall else column.name}
    return {
        "column": column,
        "order": ("descending" if falls else "ascending") if here else "",
        "link": "?" + urlencode({**query, **({"q": words} if words else {})}),
    }


@admin.register(MemoizedFunction)
class MemoizedFunctionAdmin(Base):
    """There are no rows: the pages are about what this process has imported."""

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
                transactions.without_atomic_requests(
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
        function = overview.find(object_id)
        return None if function is None else _object(function)

    def changelist_view(
        self, request: HttpRequest, extra_context: Any = None
    ) -> HttpResponse:
        """All functions."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            seen = Overview(planned())
        except ImproperlyConfigured as error:
            messages.error(request, str(error))
            seen = Overview([])
        words, wanted = request.GET.get("q", ""), request.GET.get("o", "name")
        rows = seen.searched(words)
        name, falls = wanted.removeprefix("-"), wanted.startswith("-")
        column = next((c for c in COLUMNS if c.name == name), COLUMNS[0])
        rows.sort(key=lambda row: row.path)
        rows.sort(key=column.value, reverse=falls)
        more = {
            "title": _("Memoized functions"),
            "rows": rows,
            "totals": overview.Shown(overview.totals(rows)),
            "headers": [_header(c, column, falls, words) for c in COLUMNS],
            "words": words,
            "order": wanted,
            "seen": seen,
        }
        return self._page(request, "functions", more)

    def function_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """One function."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        function = overview.find(object_id)
        if function is None:
            return self._unknown(request)
        return self._function(request, function, CallForm(function))

    def action_view(
        self, request: HttpRequest, object_id: str, name: str
    ) -> HttpResponse:
        """Something is done to one function. It answers with its page, so that the
        arguments stay where they were typed, and are nowhere else."""
        if not self.has_invalidate_permission(request):
            raise PermissionDenied
        function = overview.find(object_id)
        if function is None or name not in ACTIONS:
            return self._unknown(request)
        if request.method != "POST":
            refused = self._refuse(
                request,
                _("Nothing was done"),
                _("An action starts with the buttons on the page of the function."),
                405,
            )
            refused["Allow"] = "POST"
            return refused
        form = CallForm(function, request.POST)
        call: tuple[Any, Any] = ((), {})
        if name == "invalidate-all":
            pass
        elif form.is_valid():
            call = form.cleaned_data["arguments"]
        else:
            return self._function(request, function, form)
        outcome = attempt(ACTIONS[name], function, *call)
        messages.add_message(request, outcome.level, outcome.told)
        self.log_change(request, _object(function), outcome.logged)
        if name == "invalidate-all":
            back = f"{self.admin_site.name}:cache_memoize_memoizedfunction_change"
            return HttpResponseRedirect(reverse(back, args=[object_id]))
        return self._function(request, function, form)

    # --- parts ---

    def _function(
        self, request: HttpRequest, function: Function, form: CallForm
    ) -> HttpResponse:
        seen = Overview([function])
        (row,) = seen.rows
        more = {
            "title": row.path,
            "row": row,
            "own": overview.Shown(function.stats.totals()),
            "form": form,
            "actions": ACTIONS,
            "plan": plan_of(function),
            "seen": seen,
            "namesakes": overview.namesakes(function),
            "source": wording.source(function),
            "documentation": wording.documentation(function),
            "signature": wording.signature(function),
            "options": wording.options(function),
            "is_method": overview.is_method(function),
        }
        return self._page(request, "function", more)

    def _unknown(self, request: HttpRequest) -> HttpResponse:
        return self._refuse(
            request,
            _("This process does not know such a function"),
            _(
                "It may have another name now, or the module that it is in has not "
                "been imported by the process that answers. Open the list again."
            ),
            404,
        )

    def _refuse(
        self, request: HttpRequest, title: str, text: str, status: int
    ) -> HttpResponse:
        return self._page(request, "refused", {"title": title, "text": text}, status)

    def _page(
        self, request: HttpRequest, name: str, more: dict[str, Any], status: int = 200
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "may_invalidate": self.has_invalidate_permission(request),
            **more,
        }
        template = f"admin/cache_memoize/memoizedfunction/{name}.html"
        return TemplateResponse(request, template, context, status=status)
