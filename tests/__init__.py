"""
The tests. Nothing in them depends on how fast the machine is: Hypothesis has no deadlines.
"""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
