"""Workers by joblib: threads, processes, a Dask or a Ray cluster, by the name of the backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from amct_lite.errors import OptionalDependencyError, ParameterError

__all__ = ["BACKENDS", "Jobs", "open_workers"]

BACKENDS = ("loky", "threading", "dask", "ray")


@dataclass(frozen=True)
class Jobs:
    """How pieces of work are run.

    Attributes:
        n_jobs: Pieces at once; -1 for as many as there are processors or workers.
        backend: One of BACKENDS.
    """

    n_jobs: int
    backend: str

    def __post_init__(self) -> None:
        if isinstance(self.n_jobs, bool) or not isinstance(self.n_jobs, int) or self.n_jobs == 0:
            raise ParameterError(f"The 'n_jobs' parameter must be an int other than 0. Got {self.n_jobs!r} instead.")
        if self.backend not in BACKENDS:
            raise ParameterError(
                f"The 'backend' parameter must be one of {', '.join(BACKENDS)}. Got {self.backend!r} instead."
            )


@contextmanager
def open_workers(jobs: Jobs, **options: Any) -> Iterator[Any]:
    """The workers as a joblib.Parallel, kept until the block ends.

    Args:
        jobs: How many, and where.
        options: Passed on to joblib.Parallel.

    Raises:
        OptionalDependencyError: The backend's package is not installed.
        ParameterError: The backend is Dask, and there is no client.
    """
    import joblib

    if jobs.backend == "dask":
        try:
            from distributed import get_client
        except ImportError as error:
            raise _missing("dask", "dask[distributed]") from error
        try:
            get_client()
        except ValueError as error:
            raise ParameterError(
                'backend="dask" needs a Dask client, and there is none.',
                remedy='Make one before: distributed.Client("scheduler:8786"), or distributed.Client() for workers on'
                " this machine.",
            ) from error
    elif jobs.backend == "ray":
        try:
            from ray.util.joblib import register_ray
        except ImportError as error:
            raise _missing("ray", "ray") from error
        register_ray()
    with joblib.parallel_config(backend=jobs.backend, n_jobs=jobs.n_jobs), joblib.Parallel(**options) as parallel:
        yield parallel


def _missing(extra: str, package: str) -> OptionalDependencyError:
    return OptionalDependencyError(
        f"The backend {extra!r} needs the package {package}, which is not installed.",
        remedy=f"pip install 'amct-lite[{extra}]'",
    )
