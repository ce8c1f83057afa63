"""Nothing is timed in a test: on a busy machine, a deadline for each example is chance."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
