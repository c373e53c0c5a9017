"""A griffe extension for the Python reference: show the >>> examples in docstrings as code.

Markdown takes a line that starts with > for a quotation.
"""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
DIRECTIVE = re.compile(r"\s*# doctest: .*")


class DoctestBlocks(griffe.Extension):
    """Puts a fence around each example of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_others: Any) -> None:
        """Change the docstring of a class, function or attribute that was loaded."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(example: re.Match[str]) -> str:
    """Return an example between fences, without its directives to doctest."""
    return f"```pycon\n{DIRECTIVE.sub('', example[0])}\n```"
