"""Manifests as they should be: pure builders, models in, plain dicts out. None means that it should not exist."""
