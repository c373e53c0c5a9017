"""Filters as SQL conditions with parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from vggsearch.published.table import Wanted
from vggsearch.query.filters import Below, Dialect, Filter, Glob, Longer, Shaped, Taken

Condition = tuple[str, list[object]]  # with %s for each parameter
SIDES = {"portrait": "width < height", "landscape": "width > height", "square": "width = height"}
WILD = {"/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class Sql:
    """What differs between databases: whether a path `matches` an expression, and `taken` as it is compared."""

    expressions: Dialect
    matches: str
    taken: str
    time: Callable[[datetime], object]


def condition(wanted: Wanted, sql: Sql) -> Condition:
    """Return the condition of the wanted photos; "true" for all."""
    conditions = [_of(each, sql) for each in wanted.filters]
    if wanted.without:
        marks = ", ".join(["%s"] * len(wanted.without))
        conditions.append((f"folder NOT IN ({marks})", list[object](sorted(wanted.without))))
    texts = [f"({text})" for text, _ in conditions]
    return " AND ".join(texts) or "true", [value for _, values in conditions for value in values]


def _of(filter: Filter, sql: Sql) -> Condition:
    rule = filter.rule
    if isinstance(rule, Glob):
        return sql.matches, [f"(?s)^(?:{rule.expression(sql.expressions)})$"]
    if isinstance(rule, Below):
        return "starts_with(folded, %s)", [f"{rule.folder}/" if rule.folder else ""]
    if isinstance(rule, Taken):
        return _within(rule, sql)
    if isinstance(rule, Longer):
        most: Sequence[int] = () if rule.most is None else (rule.most,)
        sides = ["greatest(width, height) >= %s", *("greatest(width, height) <= %s" for _ in most)]
        return " AND ".join(sides), [rule.least, *most]
    if isinstance(rule, Shaped):
        return SIDES[rule.shape], []
    raise NotImplementedError(filter.text)


def _within(rule: Taken, sql: Sql) -> Condition:
    """Return the condition for a date; one without ends leaves out photos without a date, as a filter does."""
    texts, values = ["taken IS NOT NULL"], list[object]()
    if rule.since != datetime.min:
        texts.append(f"{sql.taken} >= %s")
        values.append(sql.time(rule.since))
    if rule.until != datetime.max:
        texts.append(f"{sql.taken} < %s")
        values.append(sql.time(rule.until))
    return " AND ".join(texts), values
