"""A sorter: what it can do and what it costs; to be tried on any message."""
from __future__ import annotations

import re
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from machikoba.desk import bundles, corrections, promotion, queue, versions
from machikoba.engine.explain import Explanation, explain
from machikoba.errors import MachikobaError
from machikoba.pack.bundle import Bundle, read_facts
from machikoba.pack.statement import Load, alone, bill, promise
from machikoba.settings import prices
from machikoba.store.people import ROLES, Visitor
from machikoba.store.tables import BundleEntry, Watch
from machikoba.web.access import Shop
from machikoba.web.bundles import opened
from machikoba.web.pages import steps, timeline
from machikoba.web.pages.page import Named, Page, Who, fields, go, render, told
from machikoba.web.shapes import LONGEST_TEXT
from machikoba.web.workshop import Workshop

router = APIRouter(route_class=Page, include_in_schema=False)
SHOWN_MISTAKES = 20
SECONDS_PER_MESSAGE = 0.02  # of the machine; bench/results/serving.json: a base takes 7 to 20 ms for a message
PARTICLE = re.compile(r"[\u3040-\u309f]{1,2}|\W+")  # は, です and the like: they weigh, but say nothing to a reader
LOGGED_DAYS, LOGGED_DECISIONS = 7, 30  # from which the log is believed more than an assumption
MOST = 1e9  # of a number that somebody types


@router.get("/bundles/{name}")
async def result(request: Request, name: Named, who: Who, shop: Shop) -> Response:
    entry, bundle = await run_in_threadpool(_bundle, shop, who, name)
    at_work = await run_in_threadpool(_at_work, shop, entry, bundle, who)
    load = _load(request, at_work["logged"], at_work["pace"])
    facts = await run_in_threadpool(_facts, entry, bundle, who, load, at_work["state"])
    return render(request, "result.html", **facts, **at_work)


@router.post("/bundles/{name}/again")
async def begin_again(name: Named, who: Who, shop: Shop) -> Response:
    """What was suspended may earn trust anew."""
    who.must_be("owner")
    entry, bundle = await run_in_threadpool(_bundle, shop, who, name)

    def write() -> None:
        with shop.database.writing() as session:
            found = session.get(Watch, entry.id, with_for_update=True)
            if found is not None and found.state == "suspended":
                promotion.begin_again(session, found, bundle.facts, who.who)

    await run_in_threadpool(write)
    shop.states.forget()
    return go(f"/bundles/{quote(name, safe='')}")


@router.get("/bundles/{name}/try")
async def ask(request: Request, name: Named, who: Who, shop: Shop) -> Response:
    _entry, bundle = await run_in_threadpool(_bundle, shop, who, name)
    return render(request, "try.html", name=name, bundle=bundle, text="", found=None, problem=None)


@router.post("/bundles/{name}/try")
async def answer(request: Request, name: Named, who: Who, shop: Shop) -> Response:
    """What it says to a message, and why. The message is kept nowhere."""
    _entry, bundle = await run_in_threadpool(_bundle, shop, who, name)
    text = (await fields(request)).get("text", "").strip()[:LONGEST_TEXT]
    facts: dict[str, Any] = {"name": name, "bundle": bundle, "text": text, "found": None, "problem": None}
    if text:
        try:
            service = await opened(shop, who.business_id, name)
            facts["found"] = _shown(await run_in_threadpool(explain, service, text), may_read(who))
        except MachikobaError as error:
            return render(request, "try.html", 503, **facts | {"problem": told(error)})
    return render(request, "try.html", **facts)


def may_read(who: Visitor) -> bool:
    """Whether past messages are for this person: staff and owner."""
    return who.signed_in and ROLES.index(who.role) >= ROLES.index("staff")


def _bundle(shop: Workshop, who: Visitor, name: str) -> tuple[BundleEntry, Bundle]:
    with shop.database.reading() as session:
        entry = bundles.find(session, who.business_id, name)
    return entry, read_facts(bundles.folder_of(entry, shop.home))


def _at_work(shop: Workshop, entry: BundleEntry, bundle: Bundle, who: Visitor) -> dict[str, Any]:
    """How it stands, and what the desk has of it."""
    limit = bundle.facts["target_error"]
    with shop.database.reading() as session:
        found = session.get(Watch, entry.id)
        marks = promotion.timeline(session, entry.id)
        counts = queue.counts(session, entry, who.who)
        pace, logged = queue.pace(session, entry), queue.logged(session, entry)
        history, learning = versions.history(session, entry, shop.home), versions.learning(session, entry)
        corrected = corrections.since(session, entry, versions.in_use(history).made_at)
    state = found.state if found else "qualified" if bundle.facts["threshold"] is not None else "apprentice"
    standing = timeline.standing(state, marks[-1], limit, bundle.facts["confidence"]) if marks else ""
    # What people found at work says more than the test, where the two differ.
    by_work = bool(marks) and (state == "suspended" or (state == "qualified" and bundle.facts["threshold"] is None))
    return {"state": state, "by_work": by_work, "marks": marks, "waiting": counts["open"], "pace": pace, "logged": logged,
            "proof_error": limit, "standing": standing, "chart": timeline.chart(marks, limit),
            "changes": timeline.changes(marks), "corrected": corrected, "learning": learning, "versions": len(history)}


def _facts(entry: BundleEntry, bundle: Bundle, who: Visitor, load: Load, state: str) -> dict[str, Any]:
    proof = bundle.proof()
    learnt = proof["sets"]["train"]
    ladder = [{**step, "words": steps.words(step)} for step in proof["ladder"]]
    topics = sorted(proof["test"]["per_label"], key=lambda one: -one["n"])
    return {"entry": entry, "bundle": bundle, "proof": proof, "sentences": promise(proof), "load": load,
            "ladder": ladder, "topics": topics, "learnt": learnt,
            "bill": bill(proof, alone(proof, state), learnt, load, prices(), SECONDS_PER_MESSAGE), "seconds": SECONDS_PER_MESSAGE,
            "mistakes": _mistakes(proof, bundle.examples()) if may_read(who) else None, "prices": proof["cost"]["assumptions"]}


def _mistakes(proof: dict[str, Any], examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages that it had not seen and got wrong, those that it would have answered first."""
    known = {example["id"]: example for example in examples if example["text"]}  # one that was forgotten has none
    found = [{**known[row["id"]], "said": row["label"], "answered": row["answered"]}
             for row in proof.get("wrong_rows", []) if row["id"] in known]
    return sorted(found, key=lambda one: not one["answered"])[:SHOWN_MISTAKES]


def _load(request: Request, logged: dict[str, int], pace: dict[str, Any]) -> Load:
    """The assumptions of the cost: as the log knows better, and as typed into the page's form; what is no number stays."""
    given: dict[str, Any] = {}
    if logged["days"] >= LOGGED_DAYS:
        given["messages_a_month"] = round((logged["answered"] + logged["handed_over"]) * 30 / logged["days"])
    if pace["with_n"] >= LOGGED_DECISIONS:
        given["seconds_to_check"] = pace["with"]
    for field in fields_of(Load):
        try:
            value = float(request.query_params[field.name])
        except (KeyError, ValueError):
            continue
        if 0 <= value <= MOST:
            given[field.name] = value
    return replace(Load(), **given)


def _shown(found: Explanation, past: bool) -> dict[str, Any]:
    """An explanation in the words of the page; the lead of a clear case is about 1."""
    return {"prediction": found.prediction, "neighbours": found.neighbours if past else [],
            "pro": [word.word for word in found.words if word.effect > 0 and not PARTICLE.fullmatch(word.word)],
            "against": [word.word for word in found.words if word.effect < 0 and not PARTICLE.fullmatch(word.word)]}
