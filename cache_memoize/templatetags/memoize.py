"""``{% memoize %}``: fragments of templates, with all that the decorator does.

A fragment is a memoized function of the values that follow its name. Its source, the
language, the time zone and the ``vary_on`` of the project are parts of its key, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import template
from django.template.base import FilterExpression, Parser, Token, token_kwargs
from django.template.defaulttags import CsrfTokenNode

from .. import cache_memoize, vary
from ..conf import conf

__all__ = ["FragmentNode", "compile_fragment", "register"]

register = template.Library()


def _surroundings() -> list[Any]:
    """Return what each fragment depends on besides its values. As this is no part that
    travels, no thread refreshes a fragment, which would share the context with a
    request: the caller that finds it stale does."""
    project = vary.parts(conf().DEFAULTS.get("vary_on") or (), "{% memoize %}")
    return [part() for part in (vary.language, vary.time_zone, *project)]


def _resolve(expression: FilterExpression, context: template.Context) -> Any:
    """Return the value; raise VariableDoesNotExist where Django would go on without it,
    because all users would share the fragment of a misspelled name."""
    if isinstance(expression.var, template.Variable):
        expression.var.resolve(context)
    return expression.resolve(context)


def _fragment(name: str, source: Any, timeout: Any, **options: Any) -> Any:
    def fragment(*values: Any, tags: Any = (), render: Any = None) -> Any:
        return render()

    def all_tags(*values: Any, tags: Any = (), render: Any = None) -> list[str]:
        shown = ":".join(str(getattr(value, "pk", value)) for value in values)
        more = tags.split() if isinstance(tags, str) else tags
        return [f"fragment:{name}", f"fragment:{name}:{shown}", *more]

    fragment.__name__ = fragment.__qualname__ = f"fragment {name.replace('.', '-')}"
    return cache_memoize(
        timeout,
        f"fragment:{name}",
        store_result=True,
        version=source,
        ignore=("tags", "render"),
        tags=all_tags,
        vary_on=_surroundings,
        **options,
    )(fragment)


@dataclass(eq=False)
class FragmentNode(template.Node):
    """A fragment in a template."""

    nodelist: template.NodeList
    function: Any
    values: list[FilterExpression]
    tags: FilterExpression | None

    def render(self, context: template.Context) -> Any:
        values = [_resolve(value, context) for value in self.values]
        tags = _resolve(self.tags, context) if self.tags else ()
        render = lambda: self.nodelist.render(context)  # noqa: E731
        return self.function(*values, tags=tags, render=render)


@register.tag("memoize")
def compile_fragment(parser: Parser, token: Token) -> FragmentNode:
    """Return the node of ``{% memoize TIMEOUT NAME value… option=… %}``."""
    _, *bits = token.split_contents()
    if len(bits) < 2:
        trouble = "the timeout or the name is missing: {% memoize 60 menu %}"
        raise template.TemplateSyntaxError(f"{token.contents}: {trouble}")
    timeout, name, *rest = bits
    values, named = [], {"timeout": parser.compile_filter(timeout)}
    for bit in rest:
        option = token_kwargs([bit], parser)
        named |= option
        values += [] if option else [parser.compile_filter(bit)]
    ahead: Any = parser.tokens[::-1]
    nodelist = parser.parse(("endmemoize",))
    source = [(t.token_type.value, t.contents) for t in ahead[: -len(parser.tokens)]]
    parser.delete_first_token()
    tags = named.pop("tags", None)
    try:
        if nodelist.get_nodes_by_type(CsrfTokenNode):
            raise TypeError("{% csrf_token %} is of one visitor; move it out")
        options = {k: _resolve(v, template.Context()) for k, v in named.items()}
        if " " in str(models := options.get("depends_on")):
            options["depends_on"] = str(models).split()
        function = _fragment(name.strip("'\""), source, **options)
    except template.VariableDoesNotExist as error:
        trouble = f"{error.params[0]} is no literal, as the timeout and options must be"
        raise template.TemplateSyntaxError(f"{token.contents}: {trouble}") from error
    except (TypeError, ValueError) as error:
        raise template.TemplateSyntaxError(f"{token.contents}: {error}") from error
    return FragmentNode(nodelist, function, values, tags)
