"""How hard the properties here are tried in ``make test``: the same examples each time, and not many.

The long runs are coverage-guided and have a corpus: ``make fuzz``.
"""

from hypothesis import HealthCheck, settings


def bounded(examples: int) -> settings:
    """So many examples, derived from the test itself: a run that fails fails again."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
