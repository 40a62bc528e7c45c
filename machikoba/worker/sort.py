"""The beginning of a sorting session as a job: an uploaded file without kinds becomes groups of like messages."""
from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from machikoba.base.catalog import default_base
from machikoba.records.read import Example, read
from machikoba.sort import kept
from machikoba.sort.folder import place, remove
from machikoba.sort.groups import group
from machikoba.sort.pool import Pool
from machikoba.store.jobs import CancelledError, Lease
from machikoba.tasks import classify
from machikoba.tune.ladder import Say, arithmetic
from machikoba.tune.run import readers
from machikoba.work import WorkFolder, key

MOST_MESSAGES = 20_000  # of a session: nobody answers more questions than these give, and each takes 9 ms to choose


def prepare_sorting(lease: Lease, say: Say, home: Path) -> None:
    """What an earlier start of the job finished is not made again."""
    business = home / "businesses" / lease.business_id
    folder = place(home, lease.business_id, lease.job_id)
    if not folder.exists():
        records = read(business / "uploads" / Path(lease.options["upload"]).name, text=lease.options.get("text") or None,
                       sheet=lease.options.get("sheet") or None, need_label=False)
        examples = some_of(records.examples)
        texts = [example.text for example in examples]
        work = WorkFolder(business / "work" / key("sort", texts))
        if lease.attempt == 1:
            work.begin()
        (encoder,) = readers([default_base(classify.NAME).name], home, work, say)
        vectors = encoder.layers(texts)["last"]
        encoder.rest()
        say("grouping", 0, 1)
        with arithmetic():
            pool = Pool.of(texts, vectors)
            groups = group(pool)
        first = np.unique(pool.distinct, return_index=True)[1]
        kept.save_new(folder, pool, [examples[i].date for i in first], groups)
        work.end()
    messages = len(kept.load(folder)[0])
    try:
        lease.finish({"messages": messages})
    except CancelledError:
        remove(folder)
        raise


def some_of(examples: list[Example]) -> list[Example]:
    """All of them, or MOST_MESSAGES that chance, always the same, picked; in the file's order."""
    if len(examples) <= MOST_MESSAGES:
        return examples
    by_chance = sorted(range(len(examples)), key=lambda i: hashlib.sha256(examples[i].id.encode()).digest())
    return [examples[i] for i in sorted(by_chance[:MOST_MESSAGES])]
