"""The admin's pages: the functions, one function, the caches, dependencies, history.

Every action is a POST of its own, needs the permission ``invalidate_memoizedfunction``,
and is in the admin's log. Its result is shown after a redirect, so that a reload of the
page repeats nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters

from ..describe import FunctionInfo, describe_error, list_functions
from ..models import MemoizedFunction
from ..process import printable
from ..protocol import snapshots
from ..stats.history import digest_of
from . import overview, pages
from .actions import ACTIONS, Outcome, run_action
from .caches import list_caches
from .dependencies import FORMS, Dependents, Target, action_for
from .forms import CallForm, TypedCall
from .overview import COLUMNS, HOUR, WINDOWS, WORST, Overview

__all__ = ["MemoizedFunctionAdmin"]

View = Callable[..., HttpResponse]

if TYPE_CHECKING:
    Base = admin.ModelAdmin[MemoizedFunction]
else:
    Base = admin.ModelAdmin

#: Entries on the page of the history, and below the list.
MOST_CHANGES = 200
LAST_CHANGES = 5


def _make_object(info: FunctionInfo) -> MemoizedFunction:
    return MemoizedFunction(id=info.id, path=printable(pages.name_function(info)))


def _make_printable(response: HttpResponse) -> None:
    text = response.content.decode(response.charset)
    response.content = printable(text, keep="\t\n\r").encode(response.charset)


@admin.register(MemoizedFunction)
class MemoizedFunctionAdmin(Base):
    """The pages of the functions that this process has imported; no rows of a table."""

    def get_urls(self) -> list[URLPattern]:
        views: list[tuple[str, View, str]] = [
            ("", self.changelist_view, "changelist"),
            ("caches/", self.caches_view, "caches"),
            ("dependencies/", self.dependencies_view, "dependencies"),
            ("history/", self.history_view, "changes"),
            ("<str:object_id>/history/", self.history_view, "history"),
            ("<str:object_id>/", self.function_view, "change"),
            ("<str:object_id>/<str:name>/", self.action_view, "action"),
        ]
        private = sensitive_post_parameters("arguments", "pk", "tag")
        return [
            path(
                route,
                snapshots.without_atomic_requests(
                    private(self.admin_site.admin_view(view))
                ),
                name=f"cache_memoize_memoizedfunction_{name}",
            )
            for route, view, name in views
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

    # --- pages -----------------------------------------------------------------------

    def changelist_view(
        self, request: HttpRequest, extra_context: Any = None
    ) -> HttpResponse:
        """Show the list of all functions."""
        self._check_view(request)
        query = {name: request.GET.get(name, "") for name in ("o", "q", "w")}
        seen = self._read_all(request, query["w"])
        rows = seen.search_rows(query["q"])
        name, falls = query["o"].removeprefix("-"), query["o"].startswith("-")
        column = next((each for each in COLUMNS if each.name == name), WORST)
        rows.sort(key=lambda row: row.path)
        rows.sort(key=column.value, reverse=falls or column is WORST)
        make_link = partial(_make_query, query)
        heads = pages.make_heads(column, falls, make_link)
        table = pages.list_functions(rows, heads, self._address, seen.window)
        more = {
            "title": _("Memoized functions"),
            "rows": rows,
            "table": table,
            "query": query,
            "windows": [
                (each, make_link(w=each.name), each is seen.window) for each in WINDOWS
            ],
            "worst": "" if column is WORST else make_link(o=""),
            "all": make_link(q="") if query["q"] else "",
            "changes": self._list_changes(request, None, LAST_CHANGES),
            "seen": seen,
            "here": "changelist",
        }
        return self._render_page(request, "functions", more)

    def function_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show one function."""
        self._check_view(request)
        info = overview.find_function(object_id)
        if info is None:
            return self._render_unknown(request)
        return self._render_function(request, info, CallForm(info, request.user))

    def caches_view(self, request: HttpRequest) -> HttpResponse:
        """Show all caches of the project, and whether each answers."""
        self._check_view(request)
        seen = self._read_all(request, request.GET.get("w", ""))
        found = list_caches(seen)
        more = {
            "title": _("Caches"),
            "table": pages.list_caches(found, self._address),
            "windows": [
                (each, "?" + urlencode({"w": each.name}), each is seen.window)
                for each in WINDOWS
            ],
            "seen": seen,
            "here": "caches",
        }
        return self._render_page(request, "caches", more)

    def history_view(
        self, request: HttpRequest, object_id: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show the changes of one function, or the last ones of all."""
        self._check_view(request)
        info = overview.find_function(object_id) if object_id else None
        if object_id and info is None:
            return self._render_unknown(request)
        found = self._list_changes(request, info, MOST_CHANGES)
        more = {
            "title": _("History"),
            "table": found,
            "info": info,
            "most": MOST_CHANGES,
            "here": "" if info else "changes",
        }
        return self._render_page(request, "history", more)

    def dependencies_view(self, request: HttpRequest) -> HttpResponse:
        """Show which functions depend on each table and tag; invalidate one of them, if
        that is needed after a confirmation."""
        self._check_view(request)
        try:
            dependents = Dependents()
        except ImproperlyConfigured as error:
            messages.error(request, describe_error(error))
            return HttpResponseRedirect(self._address("changelist"))
        forms = {
            name: kind(request.user, dependents, *_posted(request, name))
            for name, kind in FORMS.items()
        }
        form = next((each for each in forms.values() if each.is_bound), None)
        if request.method == "POST":
            if not self.has_invalidate_permission(request):
                raise PermissionDenied
            if form is not None and form.is_valid():
                return self._invalidate_target(request, form.target)
        more = {
            "title": _("Dependencies"),
            "forms": forms,
            "form": form,
            "table": pages.list_dependents(
                dependents, self._address, self.has_invalidate_permission(request)
            ),
            "here": "dependencies",
        }
        return self._render_page(request, "dependencies", more)

    def action_view(
        self, request: HttpRequest, object_id: str, name: str
    ) -> HttpResponse:
        """Run an action on one call or on all calls of a function. To look at a call
        changes nothing, and is answered with the arguments still in their field."""
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
        if name == "invalidate-all":
            if "confirmed" not in request.POST:
                return self._confirm_all(request, info)
            outcome = run_action(
                ACTIONS[name], request.user, info, TypedCall(info.memoized)
            )
            return self._finish(request, outcome, _make_object(info), outcome.entry)
        form = CallForm(info, request.user, request.POST)
        if not form.is_valid():
            return self._render_function(request, info, form)
        call = form.cleaned_data["call"]
        outcome = run_action(ACTIONS[name], request.user, info, call)
        if not outcome.entry:
            messages.add_message(request, outcome.level, outcome.message)
            return self._render_function(request, info, form)
        entry = pages.describe_entry(outcome.entry, call.digest, call.masked)
        return self._finish(request, outcome, _make_object(info), entry)

    # --- what they share -------------------------------------------------------------

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _address(self, name: str, *args: str) -> str:
        view = f"{self.admin_site.name}:cache_memoize_memoizedfunction_{name}"
        return reverse(view, args=args)

    def _read_all(self, request: HttpRequest, wanted: str) -> Overview:
        window = next((each for each in WINDOWS if each.name == wanted), HOUR)
        try:
            return Overview(list_functions(), window)
        except ImproperlyConfigured as error:
            messages.error(request, describe_error(error))
            return Overview([], window)

    def _list_changes(
        self, request: HttpRequest, info: FunctionInfo | None, most: int
    ) -> Any:
        kind = ContentType.objects.get_for_model(MemoizedFunction)
        entries = LogEntry.objects.filter(content_type=kind).select_related("user")
        if info is not None:
            entries = entries.filter(object_id=info.id)
        entries = entries.order_by("-action_time", "-pk")[:most]
        may_see = self.has_invalidate_permission(request)
        return pages.list_changes(entries, self._address, may_see)

    def _finish(
        self, request: HttpRequest, outcome: Outcome, obj: MemoizedFunction, entry: str
    ) -> HttpResponse:
        """Log what was done, and show it on the page that it was done from."""
        messages.add_message(request, outcome.level, outcome.message)
        self.log_change(request, obj, entry)
        back = ("change", obj.id) if obj.id else ("dependencies",)
        return HttpResponseRedirect(self._address(*back))

    def _confirm_all(self, request: HttpRequest, info: FunctionInfo) -> HttpResponse:
        more = {
            "title": _("Invalidate all calls of %(name)s?") % {"name": info.path},
            "functions": [info],
            "hidden": {},
            "back": self._address("change", info.id),
        }
        return self._render_confirmation(request, more)

    def _invalidate_target(self, request: HttpRequest, target: Target) -> HttpResponse:
        if target.needs_confirmation and "confirmed" not in request.POST:
            name = target.name if target.model else f"“{target.name}”"
            more = {
                "title": _("Invalidate all that depends on %(name)s?") % {"name": name},
                "functions": target.functions,
                "hidden": {"model" if target.model else "tag": target.name},
                "back": self._address("dependencies"),
            }
            return self._render_confirmation(request, more)
        outcome = run_action(action_for(target), request.user, target)
        entry = outcome.entry
        if target.masked:
            row = target.row
            digest = digest_of(target.name if row is None else f"pk {row.pk}")
            entry = pages.describe_entry(entry, digest, target.masked)
        obj = MemoizedFunction(id="", path=target.name if target.model else _("tag"))
        return self._finish(request, outcome, obj, entry)

    def _render_confirmation(
        self, request: HttpRequest, more: dict[str, Any]
    ) -> HttpResponse:
        seen = Overview(more.pop("functions"))
        more["table"] = pages.list_affected(seen.rows, self._address)
        return self._render_page(request, "confirm", more)

    def _render_function(
        self, request: HttpRequest, info: FunctionInfo, form: CallForm
    ) -> HttpResponse:
        seen = Overview([info])
        more = {
            "title": pages.name_function(info),
            "info": info,
            "row": seen.rows[0],
            "form": form,
            "actions": ACTIONS,
            "seen": seen,
            "namesakes": overview.count_namesakes(info),
            **pages.describe_function(seen.rows[0], self._address),
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
            "tabs": [
                (each, title, self._address(each)) for each, title in pages.TABS.items()
            ],
            **more,
        }
        template = f"admin/cache_memoize/memoizedfunction/{name}.html"
        response = TemplateResponse(request, template, context)
        response.add_post_render_callback(_make_printable)
        return response


def _make_query(query: dict[str, str], **other: str) -> str:
    """Return a link to the list with these values in place of those of its address."""
    wanted = {name: value for name, value in {**query, **other}.items() if value}
    return "?" + urlencode(wanted)


def _posted(request: HttpRequest, name: str) -> list[Any]:
    """Return the data of the form with this field, if that was sent."""
    return [request.POST] if name in request.POST else []
