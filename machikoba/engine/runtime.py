"""A bundle answers. What is proved is what is served: the proof calls the same code."""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from machikoba import files
from machikoba.adapt.contract import Scores
from machikoba.adapt.fitted.kernel import ADAPTER, KernelMachine
from machikoba.base.adapter import PEFT_WEIGHTS
from machikoba.base.load import Base, find_base
from machikoba.base.speed import Speed, machine
from machikoba.base.tokens import TokenWeights
from machikoba.errors import BundleError
from machikoba.language import _
from machikoba.pack.bundle import TOKENS, Bundle, open_bundle
from machikoba.records.privacy import mask
from machikoba.tasks.classify import Labels, Prediction, decide

if TYPE_CHECKING:
    from machikoba.base.trunk import Trunk

# Two threads on matrices this small spend nine tenths of their time waiting for each other.
ARITHMETIC_THREADS = 1


class Engine:
    """Opens bundles and keeps each base in memory once, however many bundles use it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._trunks: dict[tuple[str, tuple[str, ...], str, str], Trunk] = {}

    def load(self, path: Path, *, check_machine: bool = True) -> Service:
        """The bundle at `path`, ready to answer.

        On a machine other than the one that made it, the certify rows are replayed at the first load; unless every
        label and hand-off comes out the same, the bundle serves as an apprentice here. Raises BundleError, BaseError.
        """
        service = self.prepare(open_bundle(path))
        if check_machine and service.qualified and service.bundle.facts["machine"] != machine():
            service.qualified = self._replayed(service)
        return service

    def prepare(self, bundle: Bundle) -> Service:
        """A service for a bundle or a draft of one, without asking about its certificate."""
        facts = bundle.facts
        encode = None
        if facts["base"] is not None:
            weights = TokenWeights.load(bundle.weights / TOKENS)
            encode = self._encoder(bundle, find_base(facts["base"]["source"], self.home), weights)
        with threadpool_limits(ARITHMETIC_THREADS, user_api="blas"):
            machine_ = KernelMachine.load(bundle.weights, encode)
        labels = Labels(tuple(facts["labels"]), facts["none_label"], tuple(facts["never_automatic"]))
        return Service(bundle, machine_, labels, facts["threshold"] is not None)

    def _encoder(self, bundle: Bundle, base: Base, weights: TokenWeights) -> Callable[[Sequence[str]], np.ndarray]:
        facts = bundle.facts
        if base.sha256 != facts["base"]["sha256"]:
            raise BundleError(
                "bundle_wrong_base", _("This bundle was made with another copy of {name}.").format(name=base.name),
                expected=f"sha256 {facts['base']['sha256']}", found=f"sha256 {base.sha256}",
                next=_("Install the version that the bundle names, or tune again with this one."))
        about = facts["base"]
        adapter = bundle.weights / ADAPTER if about.get("adapter") else None
        layers = (about["layer"],)
        key = (base.sha256, layers, about["dtype"], files.digest(adapter / PEFT_WEIGHTS) if adapter else "")

        def encode(texts: Sequence[str]) -> np.ndarray:
            if key not in self._trunks:
                from machikoba.base.trunk import Trunk

                speed = Speed(about["dtype"], about["threads"], "as in the proof", 0.0)
                self._trunks[key] = Trunk(base, layers, speed, bool(about.get("both_ways")), adapter)
            return self._trunks[key].pool(texts, weights)[:, 0]

        return encode

    def _replayed(self, service: Service) -> bool:
        """Whether the certificate stands on this machine; remembered per bundle and machine."""
        memory = self.home / "cache" / "replays.json"
        key = f"{service.fingerprint}/{machine()}"
        try:
            known = json.loads(memory.read_bytes())
            return bool(known[key])
        except (OSError, ValueError, KeyError, TypeError):
            stands = not replay(service)
        try:
            known = json.loads(memory.read_bytes()) if memory.exists() else {}
            memory.parent.mkdir(parents=True, exist_ok=True)
            draft = memory.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps({**known, key: stands}), encoding="utf-8")
            draft.replace(memory)
        except (OSError, ValueError):
            pass  # then the next load replays once more
        return stands


@dataclass
class Service:
    """A loaded bundle. qualified: it answers alone; else it is an apprentice and `answered` is always false."""

    bundle: Bundle
    machine: KernelMachine
    labels: Labels
    qualified: bool

    @property
    def fingerprint(self) -> str:
        """Changes with any byte of the bundle."""
        return files.digest(self.bundle.path / "MANIFEST.sha256")[:16]

    def scores(self, texts: Sequence[str]) -> Scores:
        """Probabilities and confidence; personal data is masked as it was in training."""
        with threadpool_limits(ARITHMETIC_THREADS, user_api="blas"):
            return self.machine.predict([mask(text)[0] for text in texts])

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order."""
        facts = self.bundle.facts
        scores = self.scores(texts)
        chosen, confidence = decide(scores, self.labels)
        certified, candidate = facts["threshold"], facts["candidate_threshold"]
        threshold = certified if certified is not None else candidate
        would = confidence >= threshold if threshold is not None else np.zeros(len(texts), dtype=bool)
        return [Prediction(self.labels.names[label], round(float(trust), 6), bool(self.qualified and yes), bool(yes))
                for label, trust, yes in zip(chosen, scores.confidence, would, strict=True)]


def replay(service: Service) -> list[str]:
    """Ids of certify rows whose label or hand-off is not as in the proof; a bundle without its examples cannot pass.

    The decision compared is `would_answer`: at the certified threshold it is what a qualified bundle answers.
    """
    proved = service.bundle.proof()["certify_rows"]
    texts = {example["id"]: example["text"] for example in service.bundle.examples()}
    if not texts:
        return [row["id"] for row in proved]
    predictions = service.predict([texts[row["id"]] for row in proved])
    return [row["id"] for row, now in zip(proved, predictions, strict=True)
            if (now.label, now.would_answer) != (row["label"], row["answered"])]
