"""A report as people and machines read it."""

from ._json import as_json
from ._junit import as_junit
from ._terminal import print_report

__all__ = ["as_json", "as_junit", "print_report"]
