from unit.gateway.conftest import world

__all__ = ["world"]
