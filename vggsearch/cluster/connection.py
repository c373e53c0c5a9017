"""The connection to a Ray cluster, and what its machines have."""

import logging
import socket
from typing import Any

from vggsearch.defaults import CLUSTER
from vggsearch.errors import ClusterError, InstallationError, option


def ray_module() -> Any:
    """Return the ray module. Raises InstallationError without it."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InstallationError(option("ray", "ADDRESS"), " needs Ray: pip install 'vggsearch[ray]'") from error
    return ray


class Connection:
    """The connection to a cluster, ended with the run unless the program had it before."""

    def __init__(self, ray: Any, address: str) -> None:
        self._ray, self._address = ray, address
        self._was_there = bool(ray.is_initialized())

    def __enter__(self) -> None:
        if self._was_there:
            return
        try:
            _check_reachable(self._address)
            self._ray.init(self._address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, OSError, self._ray.exceptions.RayError) as error:
            raise ClusterError(
                f"There is no Ray cluster at {self._address}: {first_line(error)}. Run vggsearch on a machine of "
                "the cluster, which ray start joins to it."
            ) from error

    def __exit__(self, *_: object) -> None:
        if not self._was_there:
            self._ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing answers at an address with a port: Ray would wait for ten minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CLUSTER.connect_seconds).close()


def processors_of(ray: Any) -> tuple[list[int], list[int]]:
    """Return the numbers of CPUs and of GPUs of each machine. Raises ClusterError if there is no CPU."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([int(machine.get(kind, 0)) for machine in machines] for kind in ("CPU", "GPU"))
    if not any(cpus):
        raise ClusterError("The cluster has no CPUs to work with: see ray status.")
    return cpus, gpus


def first_line(error: object) -> str:
    """Return the first line of an error, without a full stop."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
