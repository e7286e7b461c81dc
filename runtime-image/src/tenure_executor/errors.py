"""What can go wrong with the container."""


class CannotServe(Exception):  # noqa: N818 - it ends the process, with this sentence
    """The container is not as it must be to run code in it."""
