"""
The tests. Nothing in them depends on how fast the machine is: Hypothesis has no deadlines, and does not mind how long
examples take to make.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
