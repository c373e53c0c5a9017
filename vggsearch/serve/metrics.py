"""Counts for Prometheus, in its text format (version 0.0.4)."""

from collections import Counter
from collections.abc import Iterable

MEDIA_TYPE = "text/plain; version=0.0.4"
OTHER = "other"  # of what no route answers: a stranger must not be able to make up labels


class Metrics:
    """How many requests each route has answered, with which status, and in how many seconds."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: Counter[str] = Counter()

    def count(self, route: str | None, status: int, seconds: float) -> None:
        """Count a request. Only for the event loop."""
        self._requests[route or OTHER, status] += 1
        self._seconds[route or OTHER] += seconds  # type: ignore[assignment] # a Counter takes any number

    def text(self, gauges: Iterable[tuple[str, str, float]]) -> str:
        """Return all counts, and `gauges`, each a name, its kind and its value."""
        lines = ["# TYPE vggsearch_requests_total counter"]
        lines += [
            f'vggsearch_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self._requests.items())
        ]
        lines.append("# TYPE vggsearch_request_seconds_total counter")
        lines += [
            f'vggsearch_request_seconds_total{{route="{route}"}} {seconds:.6f}'
            for route, seconds in sorted(self._seconds.items())
        ]
        for name, kind, value in gauges:
            lines += [f"# TYPE vggsearch_{name} {kind}", f"vggsearch_{name} {value:g}"]
        return "\n".join([*lines, ""])
