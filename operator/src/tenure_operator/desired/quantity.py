"""Quantities, as `k8s.io/apimachinery/pkg/api/resource` writes them: a decimal number and a suffix."""

from collections.abc import Iterable
from decimal import Decimal

_SUFFIXES = {
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    "m": Decimal("0.001"),
    "u": Decimal("0.000001"),
    "n": Decimal("0.000000001"),
}
_BINARY = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki")


def amount(quantity: str) -> Decimal:
    """The number that a quantity stands for. Raises `ValueError`."""
    for suffix, factor in _SUFFIXES.items():
        if quantity.endswith(suffix):
            return _number(quantity.removesuffix(suffix), quantity) * factor
    return _number(quantity, quantity)  # 1e3 is a number that Decimal reads


def _number(text: str, quantity: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{quantity!r} is not a quantity, such as 500m or 1Gi") from None


def total(quantities: Iterable[str]) -> Decimal:
    """The sum of quantities."""
    return sum((amount(quantity) for quantity in quantities), Decimal(0))


def of_bytes(number: Decimal) -> str:
    """A quantity of bytes, in the largest binary unit that leaves it whole."""
    for suffix in _BINARY:
        if number and number % _SUFFIXES[suffix] == 0:
            return f"{int(number / _SUFFIXES[suffix])}{suffix}"
    return str(int(number))


def of_cpus(number: Decimal) -> str:
    """A quantity of CPUs, in thousandths unless it is whole."""
    return str(int(number)) if number == int(number) else f"{int(number * 1000)}m"
