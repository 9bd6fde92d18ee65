"""`leancnn cache`, `leancnn cache --clear native`"""

import time
from argparse import ArgumentParser, Namespace

from leancnn.commands._base import Answer, Command, register
from leancnn.tables import printable, table

DAY_S = 86_400


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--clear",
        nargs="*",
        metavar="KIND",
        help="throw away what is kept: data, native, scores; all unless named",
    )


def run(args: Namespace) -> Answer:
    """What is kept between calls, and how to be rid of it."""
    from leancnn import cache

    if args.clear is not None:
        gone = cache.clear(args.clear or tuple(cache.KINDS))
        size = sum(entry.bytes for entry in gone)
        text = f"{size / cache.GB:.3f} GB removed from {printable(cache.folder())}"
        return Answer({"folder": str(cache.folder()), "removed_bytes": size}, text)
    most, oldest = cache.bounds()
    kept = cache.entries()
    rows = []
    for kind in cache.KINDS:
        of_kind = [entry for entry in kept if entry.kind == kind]
        size = sum(entry.bytes for entry in of_kind)
        rows.append({"kind": kind, "entries": len(of_kind), "bytes": size})
    total = sum(entry.bytes for entry in kept)
    unused = f"{(time.time() - kept[0].used) / DAY_S:.0f} days" if kept else "–"
    lines = [
        printable(cache.folder()),
        table([{**row, "bytes": f"{row['bytes']:,}"} for row in rows]),
        f"{total / cache.GB:.3f} of at most {most / cache.GB:g} GB; the longest unused {unused}, "
        f"at most {oldest / DAY_S:g}",
    ]
    value = {
        "folder": str(cache.folder()),
        "kinds": rows,
        "bytes": total,
        "most_bytes": most,
        "most_days": oldest / DAY_S,
    }
    return Answer(value, "\n".join(lines))


register(Command("cache", "show or clear what is kept between calls", arguments, run))
