"""A middleware for ``local="request"`` where Django's signals do not suffice."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from django.utils.decorators import sync_and_async_middleware

from .cache.local import local

__all__ = ["local_memory"]


@sync_and_async_middleware
def local_memory(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give each request a memory of its own, for functions with ``local="request"``.

    Needed only under ASGI with Django 5.0 to 6.0, which send the signal at the start of
    a request in another task.
    """
    if inspect.iscoroutinefunction(get_response):

        async def handle_request(request: Any) -> Any:
            with local():
                return await get_response(request)

        return handle_request
    return local()(get_response)
