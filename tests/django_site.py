"""Django for tests: configured once in a process, with a site of its own for each test."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Sequence
from typing import Any

import django
from django.conf import settings
from django.test import override_settings

__all__ = ["configure", "site"]


def configure() -> None:
    """Configure Django, unless another test has done it in this process."""
    if not settings.configured:
        settings.configure(
            SECRET_KEY="secret",
            ALLOWED_HOSTS=["*"],
            INSTALLED_APPS=["rest_framework"],
            DATABASES={},
            USE_TZ=True,
        )
    django.setup(set_prefix=False)


@contextlib.contextmanager
def site(urlpatterns: Sequence[Any], **more: Any) -> Iterator[Any]:
    """Make these the URLs of Django; yield the module that holds them."""
    urls: Any = types.ModuleType("urls_of_a_test")
    urls.urlpatterns = list(urlpatterns)
    changed = {
        "ROOT_URLCONF": urls,
        "MIDDLEWARE": [],
        "ALLOWED_HOSTS": ["*"],
        "LOGGING_CONFIG": None,
        **more,
    }
    with override_settings(**changed):
        yield urls
