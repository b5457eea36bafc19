"""`python -m benchmarks [section …]`."""

import platform
import sys
from collections.abc import Callable, Iterator

from benchmarks import figures
from benchmarks.figures import Figure


def sections() -> dict[str, Callable[[], Iterator[Figure]]]:
    """Each section by name; imported late, since one may need a server that another does not."""
    from benchmarks import check, database, http, ledger, reading

    return {
        "reading": reading.measure,
        "database": database.measure,
        "ledger": ledger.measure,
        "http": http.measure,
        "check": check.measure,
    }


def main(wanted: list[str]) -> int:
    known = sections()
    if unknown := set(wanted) - set(known):
        print(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    print(
        f"# {platform.machine()}, Python {platform.python_version()}; PostgreSQL with fsync and synchronous_commit on"
    )
    found = []
    for name in wanted or known:
        for figure in known[name]():
            print(figure, flush=True)
            found.append(figure)
    figures.write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
