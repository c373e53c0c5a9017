"""Time all pairs and many queries on a GPU, for vectors made on it, half of them in families of about ten.

    python benchmarks/gpu_pairs.py 100000 1000000

prints one line of JSON for each number of rows. Only torch and NumPy are needed.
"""

import argparse
import json
import time

import numpy as np
import torch
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.edges import SIMILARITY_STEPS
from vggsearch.knn.keys import NO_KEY, ROW_MASK
from vggsearch.knn.torch_scan import TorchScan

DIM = 384
CHECKED = 200  # rows whose neighbours are computed in float64, too
QUERIES = (1, 64, 1024, 8192)
COUNT = 26  # nearest rows of a query: ten results, and what decides ties


def vectors(rows: int, device: torch.device) -> NDArray[np.float16]:
    """Return unit vectors: every other one near one of rows / 20 parents, the rest at random."""
    random = torch.Generator(device).manual_seed(1)
    parents = torch.randn((max(1, rows // 20), DIM), generator=random, device=device)
    made = torch.randn((rows, DIM), generator=random, device=device)
    chosen = torch.randint(0, len(parents), (len(made[::2]),), generator=random, device=device)
    spread = 0.2 + torch.rand((len(chosen), 1), generator=random, device=device)
    made[::2] = parents[chosen] + spread * made[::2]
    found: NDArray[np.float16] = (made / made.norm(dim=1, keepdim=True)).half().cpu().numpy()
    return found


def are_right(stored: NDArray[np.float16], keys: NDArray[np.int64]) -> bool:
    """Return whether the rows found for some of the rows are those of an exact search."""
    chosen = np.linspace(0, len(stored) - 1, CHECKED).astype(np.int64)
    unit = stored.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    steps = np.rint(np.minimum(unit[chosen] @ unit.T, 1) * SIMILARITY_STEPS).astype(np.int64)
    wanted = steps * (1 << 32) + (ROW_MASK - np.arange(len(stored)))
    wanted[np.arange(CHECKED), chosen] = NO_KEY
    wanted = -np.sort(-np.partition(wanted, -PAIRS.count, axis=1)[:, -PAIRS.count :], axis=1)
    return bool((wanted == keys[chosen]).all())


def timed(scan: TorchScan, queries: NDArray[np.float32]) -> float:
    """Return the median milliseconds of five searches."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        scan.nearest(queries, COUNT)
        times.append(time.perf_counter() - started)
    return round(1000 * float(np.median(times[1:])), 2)


def measured(rows: int, device: torch.device) -> dict[str, object]:
    stored = vectors(rows, device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    edges = all_pairs(stored)
    total = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated(device)
    started = time.perf_counter()
    scan = TorchScan(stored, device)
    torch.cuda.synchronize(device)
    uploaded = time.perf_counter()
    keys = scan.neighbours(PAIRS.count, -1.0, np.zeros(rows, bool))
    searched = time.perf_counter()
    return {
        "gpu": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "rows": rows,
        "all_pairs_s": round(total, 2),
        "pairs": len(edges),
        "gpu_memory_gb": round(peak / 1e9, 2),
        "upload_s": round(uploaded - started, 2),
        "search_s": round(searched - uploaded, 2),
        "tflop_per_s": round(2 * rows * rows * DIM / (searched - uploaded) / 1e12),
        "right": are_right(stored, keys),
        "ms_of_queries": {count: timed(scan, stored[:count].astype(np.float32)) for count in QUERIES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", type=int)
    for rows in parser.parse_args().rows:
        print(json.dumps(measured(rows, torch.device("cuda", 0))), flush=True)


if __name__ == "__main__":
    main()
