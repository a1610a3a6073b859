"""How often a property is tried."""

from hypothesis import settings


def tries(times):
    """Return settings of that many times the examples of the profile, for properties of middling cost."""
    return settings(max_examples=max(1, round(times * settings.default.max_examples)))
