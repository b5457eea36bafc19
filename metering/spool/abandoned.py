"""The spools of processes that died: drained by whoever comes by."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from metering.spool.drain import OnSettled, Survey, drain
from metering.spool.place import Place, sync
from metering.store.base import Store, StoreError

log = logging.getLogger("metering.spool")


def drain_abandoned(store: Store, root: Path, on_settled: OnSettled = lambda rows: None) -> int:
    """Drain what dead processes left under `root`; how many records of theirs are left. Another one that does the same just
    now has locked what it has in hand."""
    left = 0
    for place in Place.of_the_dead(root):
        survey = Survey(place.segments())
        if not survey.files:
            continue
        try:
            asyncio.run(drain(store, place, survey, is_dead=True, on_settled=on_settled))
        except StoreError as error:
            log.warning("the spool in %s cannot be drained yet: %s", place.path, error)
            left += survey.records
            continue
        remove(place, survey)
        log.warning("the spool of a dead process with %d calls is in the database", survey.records)
    return left


def remove(place: Place, survey: Survey) -> None:
    """Remove drained files, in their order; one that is damaged is kept under another name."""
    for file in survey.files:
        set_aside([file] if file in survey.damaged else [])
        file.unlink(missing_ok=True)
    sync(place.path)


def set_aside(files: Iterable[Path]) -> None:
    """Keep files for a person to look at."""
    for file in files:
        file.rename(file.with_name(f"{file.name}.damaged"))
