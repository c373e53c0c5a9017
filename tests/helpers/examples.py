"""How often a property is tried."""

from hypothesis import settings

DEV_EXAMPLES = 20  # a constant: processes that tests start import their modules, but register no profile


def examples(full: int) -> int:
    """Return `full` in the hypothesis profile "ci" (`make test-all`), otherwise at most DEV_EXAMPLES."""
    return full if settings.get_current_profile_name() == "ci" else min(full, DEV_EXAMPLES)
