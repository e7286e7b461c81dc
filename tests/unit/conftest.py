"""One profile of hypothesis for all: a busy machine must not fail a test."""

from hypothesis import HealthCheck, settings

settings.register_profile("tenure", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tenure")
