"""How often a property is tried."""

from hypothesis import settings


def examples(full: int) -> int:
    """Return `full` in the hypothesis profile "ci" (`make test-all`), else what the profile "dev" tries at most."""
    if settings.get_current_profile_name() == "ci":
        return full
    return min(full, settings.get_profile("dev").max_examples)
