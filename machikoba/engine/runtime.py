"""A bundle answers. What is proved is what is served: the proof calls the same code.

Bundles that share a base read with one copy of it, texts of all of them in one pass; each keeps its own updates, token
weights and past messages.
"""
from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from machikoba.adapt.contract import Scores
from machikoba.adapt.fitted.kernel import ADAPTER, KernelMachine, Likeness, joined
from machikoba.base.load import Base, find_base
from machikoba.base.speed import Speed
from machikoba.base.tokens import TokenWeights
from machikoba.engine import replays
from machikoba.errors import BundleError
from machikoba.language import _
from machikoba.pack.bundle import TOKENS, Bundle, Stamp, open_bundle, read_facts, stamp, unmoved
from machikoba.records.privacy import mask
from machikoba.tasks.classify import Labels, Prediction, decide

if TYPE_CHECKING:
    from machikoba.base.shared import Adapter, Reading, SharedTrunk

# Two threads on matrices this small spend nine tenths of their time waiting for each other.
ARITHMETIC_THREADS = 1
BLOCK = 1_024  # texts answered at a time, to bound memory
LIKELY = 3  # labels that are told besides the first
RESIDENT_MIB = 960  # of bundles and their updates that are kept in memory
REMEMBERED = 1_024  # bundles of which is known what lists say of them
TrunkKey = tuple[str, str, int, bool]  # which copy of a base: its hash, number format, threads, both ways


class Engine:
    """Opens bundles and keeps each base in memory once, however many bundles use it. Safe for several threads.

    resident_mib: what is beyond it is dropped and read again when it is asked for: first updates, which are quick to read, then
    whole bundles, those first that nobody has asked for longest.
    """

    def __init__(self, home: Path, resident_mib: int = RESIDENT_MIB) -> None:
        self.home, self.resident_bytes = home, resident_mib << 20
        self._lock = RLock()  # of what is kept
        self._bases: dict[str, Base] = {}
        self._trunks: dict[TrunkKey, tuple[SharedTrunk, RLock]] = {}
        self._services: OrderedDict[Path, tuple[Stamp | None, Service]] = OrderedDict()
        self._updates: OrderedDict[Reader, Adapter] = OrderedDict()
        self._kept_bytes = 0  # of both; to count them anew takes longer than to answer
        self._loading: dict[Path, Future[Service]] = {}
        # One thread runs all models for all others. Each thread that does gets helpers of its own from the library of the
        # products, and as soon as there are more than cores they sleep between any two products instead of waiting awake
        # (docs/log.md).
        self._models, self._reading_now = ThreadPoolExecutor(1, "models"), Lock()

    def open(self, path: Path) -> Service:
        """The bundle at `path`, from memory where it lies there unchanged; who asks while it is loaded waits for that.

        Raises as `load`, to all who wait.
        """
        with self._lock:
            held, loading = self.held(path), self._loading.get(path)
            if held is None and loading is None:
                mine = self._loading[path] = Future()
        if held is not None:
            return held
        if loading is not None:
            return loading.result()
        try:
            seen = stamp(path)
            service = self.load(path)
            with self._lock:
                self._services[path] = (seen, service)
                self._kept_bytes += service.nbytes
                self._drop()
            mine.set_result(service)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._loading[path]
        return service

    def glance(self, paths: Sequence[Path]) -> list[Glance | None]:
        """What lists say of the bundles at `paths`, none of them loaded; None for one that is not there or damaged.

        A bundle certified elsewhere is not called qualified before its proof was replayed here, which is when it is
        first asked.
        """
        stood, found = replays.known(self.home), list[Glance | None]()
        for path in paths:
            try:
                facts, fingerprint = _facts(path, stamp(path))
                qualified = facts["threshold"] is not None and replays.stands(stood, facts, fingerprint) is True
                glance = Glance(facts["task"], tuple(facts["labels"]), qualified)
            except (BundleError, OSError, KeyError, TypeError):
                found.append(None)
            else:
                found.append(glance)
        return found

    def held(self, path: Path) -> Service | None:
        """The bundle at `path` where it is in memory and has not changed since; it is then the last to be dropped."""
        seen = stamp(path)
        with self._lock:
            known = self._services.get(path)
            if known is None:
                return None
            if seen is None or known[0] != seen:
                self._forget(path)
                return None
            self._services.move_to_end(path)
            return known[1]

    def load(self, path: Path, *, check_machine: bool = True) -> Service:
        """The bundle at `path`, ready to answer.

        On another machine than the one that made it, or with other versions of what computes, the certify rows are replayed
        at the first load; unless every label and hand-off comes out the same, the bundle serves as an apprentice here. Raises
        BundleError, BaseError.
        """
        with unmoved(path):
            service = self.prepare(open_bundle(path))
            if check_machine and service.qualified:
                service.qualified = self._stands(service)
        return service

    def prepare(self, bundle: Bundle) -> Service:
        """A service for a bundle or a draft of one, without asking about its certificate."""
        facts = bundle.facts
        reader = None if facts["base"] is None else self._reader(bundle)
        machine_ = KernelMachine.load(bundle.weights)
        labels = Labels(tuple(facts["labels"]), facts["none_label"], tuple(facts["never_automatic"]))
        return Service(bundle, machine_, labels, facts["threshold"] is not None, self, reader)

    def answer(self, asked: Sequence[tuple[Service, Sequence[str]]]) -> list[list[Prediction]]:
        """Predictions for the texts of each service, in order. Raises BaseError, BundleError."""
        return [service.decided(scores) for (service, _texts), scores in zip(asked, self.scores(asked), strict=True)]

    def scores(self, asked: Sequence[tuple[Service, Sequence[str]]]) -> list[Scores]:
        """Probabilities and confidence of the texts of each service. Raises BaseError, BundleError."""
        masked = [(service, [mask(text)[0] for text in texts]) for service, texts in asked]
        features = self.features(masked)
        with _arithmetic().limit(limits=ARITHMETIC_THREADS, user_api="blas"):
            return [service.machine.scores(texts, raw) for (service, texts), raw in zip(masked, features, strict=True)]

    def features(self, asked: Sequence[tuple[Service, Sequence[str]]]) -> list[np.ndarray | None]:
        """Features (n, d) of the masked texts of each; None for bundles that need none. Raises BaseError, BundleError."""
        found: list[np.ndarray | None] = [None] * len(asked)
        together: dict[TrunkKey, list[int]] = {}
        for i, (service, _texts) in enumerate(asked):
            if service.reader is not None:
                together.setdefault(service.reader.trunk, []).append(i)
        for members in together.values():
            reader = asked[members[0]][0].reader
            assert reader is not None
            trunk, part = self._trunk(reader), [asked[i] for i in members]
            alone = threading.current_thread() is threading.main_thread()  # of a program that answers one after the other
            pooled = self._read(trunk, part) if alone else self._models.submit(self._read, trunk, part).result()
            start = 0
            for i in members:
                end = start + len(asked[i][1])
                found[i] = np.stack(pooled[start:end]) if end > start else np.zeros((0, 0), np.float32)
                start = end
        return found

    def _read(self, trunk: SharedTrunk, asked: Sequence[tuple[Service, Sequence[str]]]) -> list[np.ndarray]:
        """Features (d,) of the texts of services with one base."""
        with self._reading_now:
            readings = [reading for service, texts in asked for reading in [self._reading(service, trunk)] * len(texts)]
            return trunk.pool([text for _service, texts in asked for text in texts], readings)

    def _trunk(self, reader: Reader) -> SharedTrunk:
        """The base that `reader` reads with, in memory. Raises BaseError."""
        with self._lock:
            if reader.trunk not in self._trunks:
                from machikoba.base.shared import SharedTrunk

                _sha256, dtype, threads, both_ways = reader.trunk
                made = SharedTrunk(reader.base, Speed(dtype, threads, "as in the proof", 0.0), both_ways)
                self._trunks[reader.trunk] = made, RLock()
            trunk, loading = self._trunks[reader.trunk]
        with loading:
            if not trunk.loaded:
                with ThreadPoolExecutor(1, "loading") as passing:  # others are answered meanwhile, and its helpers end with it
                    passing.submit(trunk.load).result()
        return trunk

    def _reading(self, service: Service, trunk: SharedTrunk) -> Reading:
        from machikoba.base.shared import Reading

        reader = service.reader
        assert reader is not None
        if reader.folder is None:
            return Reading(reader.layer, reader.weights)
        with self._lock:
            adapter = self._updates.get(reader)
            if adapter is not None:
                self._updates.move_to_end(reader)
        if adapter is None:
            with unmoved(service.bundle.path):
                adapter = trunk.adapter(reader.folder)
            with self._lock:
                self._updates[reader] = adapter
                self._kept_bytes += adapter.nbytes
                self._drop()
        return Reading(reader.layer, reader.weights, adapter)

    def _reader(self, bundle: Bundle) -> Reader:
        about = bundle.facts["base"]
        with self._lock:
            base = self._bases.get(about["source"]) or find_base(about["source"], self.home)
            self._bases[about["source"]] = base
        if base.sha256 != about["sha256"]:
            with self._lock:
                self._bases.pop(about["source"])
            raise BundleError(
                "bundle_wrong_base", _("This bundle was made with another copy of {name}.").format(name=base.name),
                expected=f"sha256 {about['sha256']}", found=f"sha256 {base.sha256}",
                next=_("Install the version that the bundle names, or tune again with this one."))
        key = (base.sha256, about["dtype"], about["threads"], bool(about.get("both_ways")))
        folder = bundle.weights / ADAPTER if about.get("adapter") else None
        return Reader(base, key, about["layer"], TokenWeights.load(bundle.weights / TOKENS), folder)

    def _drop(self) -> None:
        """Forgets updates, then bundles, longest unused first, until what is left fits; the newest always stays."""
        while self._kept_bytes > self.resident_bytes and len(self._updates) > 1:
            self._kept_bytes -= self._updates.popitem(last=False)[1].nbytes
        while self._kept_bytes > self.resident_bytes and len(self._services) > 1:
            self._forget(next(iter(self._services)))

    def _forget(self, path: Path) -> None:
        """Whoever has the bundle in hand goes on with it."""
        _seen, service = self._services.pop(path)
        self._kept_bytes -= service.nbytes
        if service.reader is not None and (adapter := self._updates.pop(service.reader, None)) is not None:
            self._kept_bytes -= adapter.nbytes

    def _stands(self, service: Service) -> bool:
        """Whether the certificate stands on this machine, replayed where that is not known yet."""
        facts, fingerprint = service.bundle.facts, service.bundle.fingerprint
        stands = replays.stands(replays.known(self.home), facts, fingerprint)
        if stands is None:
            stands = not replay(service)
            replays.remember(self.home, replays.key(facts, fingerprint), stands)
        return stands


@dataclass(frozen=True)
class Glance:
    """What lists say of a bundle. qualified: it answers alone."""

    task: str
    labels: tuple[str, ...]
    qualified: bool


@dataclass(frozen=True, eq=False)
class Reader:
    """How a bundle reads. trunk: which copy of the base; folder: of its updates, where it has any."""

    base: Base
    trunk: TrunkKey
    layer: str
    weights: TokenWeights
    folder: Path | None


@dataclass
class Service:
    """A loaded bundle. qualified: it answers alone; else it is an apprentice and `answered` is always false."""

    bundle: Bundle
    machine: KernelMachine
    labels: Labels
    qualified: bool
    engine: Engine = field(repr=False)
    reader: Reader | None = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Memory of what the bundle brings along but its updates, in bytes."""
        return self.machine.nbytes + (self.reader.weights.nbytes if self.reader else 0)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order."""
        return self.decided(self.scores(texts))

    def scores(self, texts: Sequence[str]) -> Scores:
        """Probabilities and confidence; personal data is masked as it was in training."""
        blocks = [texts[start:start + BLOCK] for start in range(0, len(texts), BLOCK)]
        return joined([self.engine.scores([(self, block)])[0] for block in blocks], len(self.labels.names))

    def likeness(self, texts: Sequence[str]) -> Likeness:
        """How much `texts`, masked as in training, are like the past messages."""
        masked = [mask(text)[0] for text in texts]
        return self.machine.likeness(masked, self.engine.features([(self, masked)])[0])

    def decided(self, scores: Scores) -> list[Prediction]:
        """What the bundle says, given the scores of its machine."""
        facts = self.bundle.facts
        chosen, confidence = decide(scores, self.labels)
        certified, candidate = facts["threshold"], facts["candidate_threshold"]
        threshold = certified if certified is not None else candidate
        would = confidence >= threshold if threshold is not None else np.zeros(len(chosen), dtype=bool)
        names, order = self.labels.names, np.argsort(-scores.probabilities, axis=1)[:, 1:1 + LIKELY].tolist()
        return [Prediction(names[label], round(float(trust), 6), bool(self.qualified and yes), bool(yes),
                           tuple(names[other] for other in next_ones))
                for label, trust, yes, next_ones in zip(chosen, scores.confidence, would, order, strict=True)]


@lru_cache(maxsize=REMEMBERED)
def _facts(path: Path, _stamp: Stamp | None) -> tuple[dict[str, Any], str]:
    """bundle.json and fingerprint of the bundle at `path`. Raises BundleError."""
    bundle = read_facts(path)
    return bundle.facts, bundle.fingerprint


@lru_cache(maxsize=1)
def _arithmetic() -> ThreadpoolController:
    """The libraries whose threads are limited; to look for them takes longer than to answer."""
    return ThreadpoolController()


def replay(service: Service, say: Callable[[str, int, int], None] = lambda *_: None) -> list[str]:
    """Ids of certify rows whose label or hand-off is not as in the proof; one whose text was deleted cannot pass.

    The decision compared is `would_answer`: at the certified threshold it is what a qualified bundle answers.
    """
    proved = service.bundle.proof()["certify_rows"]
    texts = {example["id"]: example["text"] for example in service.bundle.examples()}
    here = [row for row in proved if row["id"] in texts]
    same: set[str] = set()
    for start in range(0, len(here), BLOCK):  # together as they were when proved
        say("replay", start, len(here))
        rows = here[start:start + BLOCK]
        same |= {row["id"] for row, now in zip(rows, service.predict([texts[row["id"]] for row in rows]), strict=True)
                 if (now.label, now.would_answer) == (row["label"], row["answered"])}
    say("replay", len(here), len(here))
    return [row["id"] for row in proved if row["id"] not in same]
