"""`python -m bench [NAME...]`: measures all figures, or those of the named modules, and prints them as a table."""

import importlib
import sys

from bench.figure import table

MODULES = ("journal", "processes", "steps", "history", "code", "sessions", "claims", "turns", "wake", "scale", "asleep")


def main() -> None:
    """Runs the modules one after the other."""
    for name in sys.argv[1:] or MODULES:
        print(f"measuring: {name}", flush=True)
        for figure in importlib.import_module(f"bench.{name}").measure():
            figure.save()
            print(f"  {figure.name}: {figure.value:.4g} {figure.unit}, ratio {figure.ratio or 0:.3g}", flush=True)
    print(table())


if __name__ == "__main__":
    main()
