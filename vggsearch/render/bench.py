"""Measured throughput to text."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from vggsearch.defaults import Format
from vggsearch.evaluation.throughput import BenchReport, EngineReport
from vggsearch.render.text import as_table

EXAMPLE_PHOTOS = 100_000


def bench(measured: BenchReport, format: Format) -> str:
    """Render the throughput of each stage beside the hardware limit, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(measured), ensure_ascii=False, indent=2)
    each = measured
    rows = [
        ("decoding only", each.decode_per_s, ""),
        ("network only", each.forward_per_s, f"{each.forward_per_s / each.limit_per_s:.0%} of the limit"),
        (
            "decoding and network",
            each.end_to_end_per_s,
            f"{each.end_to_end_per_s / each.forward_per_s:.0%} of the network alone",
        ),
        ("hardware limit", each.limit_per_s, "large convolutions at the same precision"),
    ]
    table = as_table(
        ("stage", "photos/s", ""), [(name, f"{rate:,.1f}", note) for name, rate, note in rows], right=[1]
    )
    example = timedelta(seconds=round(EXAMPLE_PHOTOS / each.end_to_end_per_s))
    return (
        f"{each.engine}, {each.device}, {each.precision}\n\n{table}\n\n"
        f"{EXAMPLE_PHOTOS:,} photos take about {example} (h:mm:ss)."
    )


def engines(measured: Sequence[EngineReport], format: Format) -> str:
    """Render the throughput of each backend and precision, and its deviation from fp32, as a table or as JSON."""
    if format == "json":
        return json.dumps([asdict(each) for each in measured], ensure_ascii=False, indent=2)
    rows = [
        (
            each.engine,
            each.device,
            each.precision,
            f"{each.forward_per_s:,.1f}",
            f"{each.cosine:.5f}",
            f"{each.worst_cosine:.5f}",
        )
        for each in measured
    ]
    return as_table(
        ("engine", "device", "precision", "photos/s", "mean cosine", "min cosine"), rows, right=range(3, 6)
    )
