"""Five pages, which show whether their memoized call was a hit or a miss."""

import re

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from .measure import measured
from .models import Post
from .related import popular_keywords, related_posts, related_posts_by_table


class PostForm(forms.ModelForm):
    class Meta:
        model = Post
        fields = ["title", "keywords"]

    def clean_keywords(self) -> str:
        words = re.findall(r"[^\s,]+", self.cleaned_data["keywords"].lower())
        if not words:
            raise forms.ValidationError("At least one keyword, please.")
        return " ".join(dict.fromkeys(words))


@require_safe
def front(request: HttpRequest) -> HttpResponse:
    context = {
        "measured": measured(popular_keywords),
        "posts": Post.objects.all()[:20],
        "count": Post.objects.count(),
    }
    return render(request, "front.html", context)


@require_safe
def read(request: HttpRequest, pk: int) -> HttpResponse:
    post = get_object_or_404(Post, pk=pk)
    context = {"post": post, "measured": measured(related_posts, pk)}
    return render(request, "read.html", context)


@require_safe
def read_by_table(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the same page without an invalidation."""
    post = get_object_or_404(Post, pk=pk)
    context = {"post": post, "measured": measured(related_posts_by_table, pk)}
    return render(request, "read_by_table.html", context)


def edit(request: HttpRequest, pk: int) -> HttpResponse:
    post = get_object_or_404(Post, pk=pk)
    form = PostForm(request.POST or None, instance=post)
    if request.method == "POST" and form.is_valid():
        post.rewrite(**form.cleaned_data)  # invalidates calls: see related.py
        return redirect("read", pk)
    context = {"post": post, "form": form, "measured": measured(related_posts, pk)}
    return render(request, "edit.html", context)


@require_POST
def refresh(request: HttpRequest, pk: int) -> HttpResponse:
    get_object_or_404(Post, pk=pk)
    related_posts(pk, _refresh=True)
    return redirect("read", pk)
