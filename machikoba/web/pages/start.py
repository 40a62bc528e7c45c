"""From a file to a started work: sent, looked at, said what it shall do, its cost, begun. Each step has an address of its own."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from machikoba import files
from machikoba.desk import bundles
from machikoba.errors import DataError, MachikobaError
from machikoba.language import _, language
from machikoba.settings import prices
from machikoba.store import jobs
from machikoba.store.people import Visitor
from machikoba.store.tables import Job
from machikoba.web import reading
from machikoba.web.access import Shop
from machikoba.web.pages import steps
from machikoba.web.pages.page import Id, Page, Who, fields, go, nothing_here, render, several, told, upload
from machikoba.web.pages.remarks import careful, none_of, remarks
from machikoba.web.problems import status_of
from machikoba.web.tasks import ending_of, kept_upload, must_have_room, upload_folder
from machikoba.web.workshop import Workshop

router = APIRouter(route_class=Page, include_in_schema=False)
ERRORS = (0.02, 0.05, 0.1)
RUNGS = ("words,features", "words,features,top,lora")
MOST_NAME = 200  # characters of a file's name
MOST_KEPT = 50
# What reading a file gave, by the task, its columns and the language: first rows are customers' words, so not in the store.
_known: OrderedDict[tuple[str, ...], dict[str, Any]] = OrderedDict()


@router.get("/start")
async def choose(request: Request, who: Who) -> Response:
    who.must_be("owner")
    return render(request, "start.html", problem=None)


@router.post("/start")
async def take(request: Request, who: Who, shop: Shop) -> Response:
    """Keeps a file; the same one sent twice is taken up where it was left."""
    who.must_be("owner")
    sent = await upload(request, "file")
    try:
        if sent is None:
            raise DataError("file_missing", _("No file was chosen."), expected=_("an Excel or CSV file"),
                            next=_("Choose the file that holds the inquiries."))
        job, again = await run_in_threadpool(keep_draft, shop, who, sent.filename or "", sent.file)
    except MachikobaError as error:
        return render(request, "start.html", status_of(error), problem=told(error))
    return go(f"/start/{job.id}{'?again=1' if again else ''}")


@router.get("/start/{job_id}")
async def look(request: Request, job_id: Id, who: Who, shop: Shop, text: str = "", label: str = "", sheet: str = "",
               again: str = "") -> Response:
    """The file as it was read."""
    job, used = await run_in_threadpool(_draft, shop, who, job_id)
    if job.state != "draft":
        return go(f"/work/{job.id}")
    columns = {"text": text, "label": label, "sheet": sheet} if text else {
        name: job.options.get(name) or "" for name in ("text", "label", "sheet")}
    facts: dict[str, Any] = {"job": job, "used": used, "again": bool(again), "problem": None, "report": None, "remarks": []}
    try:
        report = await run_in_threadpool(_report, shop, job, columns)
    except MachikobaError as error:
        return render(request, "look.html", 422, **facts | {"problem": told(error)})
    return render(request, "look.html", **facts | {
        "report": report, "remarks": remarks(report), "wanted": _wanted(job, report)})


@router.post("/start/{job_id}")
async def want(request: Request, job_id: Id, who: Who, shop: Shop) -> Response:
    """Keeps what it shall do."""
    form, never = await fields(request), await several(request, "never_automatic")
    chosen = {name: form.get(name, "")[:MOST_NAME] for name in ("text", "label", "sheet", "none_label")}
    error = float(form["target_error"]) if form.get("target_error", "") in map(str, ERRORS) else 0.05
    rungs = form["rungs"] if form.get("rungs") in RUNGS else RUNGS[0]
    name = form.get("name", "").strip()

    def write(session: Session, job: Job) -> None:
        job.options = {**job.options, **chosen, "name": name, "rungs": rungs, "target_error": error,
                       "never_automatic": [label for label in never if label != chosen["none_label"]]}

    try:
        bundles.check_name(name)
    except MachikobaError as problem:
        job, used = await run_in_threadpool(_draft, shop, who, job_id)
        report = await run_in_threadpool(_report, shop, job, chosen)
        wanted = _wanted(job, report) | chosen | {"name": name, "rungs": rungs, "target_error": error, "never_automatic": never}
        return render(request, "look.html", 422, job=job, used=used, again=False, problem=told(problem), report=report,
                      remarks=remarks(report), wanted=wanted)
    await run_in_threadpool(change_draft, shop, who, job_id, write)
    return go(f"/start/{job_id}/cost")


@router.get("/start/{job_id}/cost")
async def cost(request: Request, job_id: Id, who: Who, shop: Shop) -> Response:
    job, _used = await run_in_threadpool(_draft, shop, who, job_id)
    if job.state != "draft":
        return go(f"/work/{job.id}")
    if not job.options.get("label"):
        return go(f"/start/{job.id}")
    path = upload_folder(shop.home, who.business_id) / job.options["upload"]
    facts: dict[str, Any] = {"job": job, "problem": None, "steps": [], "prices": prices()}
    try:
        found = await run_in_threadpool(reading.estimated, path, job.options["filename"], job.options)
    except MachikobaError as error:
        return render(request, "estimate.html", 422, **facts | {"problem": told(error)})
    every = [{**step, "words": steps.words(step)} for step in found["steps"]]
    return render(request, "estimate.html", **facts | {
        "steps": every, "seconds": sum(step["estimate"]["wall_seconds"] for step in every),
        "yen": f"{sum(step['estimate']['yen'] for step in every):.2f}"})


@router.post("/start/{job_id}/run")
async def begin(job_id: Id, who: Who, shop: Shop) -> Response:
    """Gives the work to the worker; sent twice, it is begun once."""
    def write(session: Session, job: Job) -> None:
        if job.options.get("label"):  # else what it shall do was not said yet: the work's page leads back there
            must_have_room(session, who.business_id)
            jobs.start(session, job, who.who)

    await run_in_threadpool(change_draft, shop, who, job_id, write)
    return go(f"/work/{job_id}")


def keep_draft(shop: Workshop, who: Visitor, filename: str, file: IO[bytes], options: dict[str, Any] | None = None
               ) -> tuple[Job, bool]:
    """A work that waits to be begun with this file, and whether it was there already. options: what is known of it beforehand.
    Raises DataError, RequestError, StorageError."""
    filename = Path(filename.replace("\\", "/")).name[-MOST_NAME:]
    with kept_upload(shop.home, who.business_id, file, ending_of(filename)) as path:
        digest = files.digest(path)
        with shop.database.writing() as session:
            same = [job for job in session.scalars(select(Job).where(
                Job.business_id == who.business_id, Job.kind == "tune", Job.state == "draft"))
                if job.options.get("digest") == digest]
            if same:
                path.unlink(missing_ok=True)
                return same[0], True
            name = _free_name(session, who.business_id, Path(filename).stem)
            return jobs.draft(session, who.business_id, "tune", {
                "name": name, "filename": filename, "upload": path.name, "digest": digest, **(options or {})}, who.who), False


def _free_name(session: Session, business_id: str, stem: str) -> str:
    taken = {entry.name for entry in bundles.listed(session, business_id)}
    plain = bundles.UNUSABLE.sub("_", stem[:90]).strip(". ") or _("inquiries")
    return next(name for n in range(1, len(taken) + 2) if (name := plain if n == 1 else f"{plain} {n}") not in taken)


def _draft(shop: Workshop, who: Visitor, job_id: str) -> tuple[Job, str | None]:
    """The task, and the name of a sorter that was made from the same file. Raises RequestError."""
    who.must_be("owner")
    with shop.database.reading() as session:
        job = _own(session, who, job_id)
        names = {entry.name for entry in bundles.listed(session, who.business_id)}
        done = session.scalars(select(Job).where(Job.business_id == who.business_id, Job.kind == "tune", Job.state == "done"))
        used = next((one.options["name"] for one in done if one.options.get("digest") == job.options.get("digest")
                     and one.options["name"] in names), None)
    return job, used


def _own(session: Session, who: Visitor, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None or job.business_id != who.business_id or job.kind != "tune" or not job.options.get("filename"):
        raise nothing_here()
    return job


def change_draft(shop: Workshop, who: Visitor, job_id: str, write: Callable[[Session, Job], None]) -> None:
    """Changes a work that nobody has begun yet; one that was begun stays as it is. Raises AccessError, RequestError."""
    who.must_be("owner")
    with shop.database.writing() as session:
        job = _own(session, who, job_id)
        session.refresh(job, with_for_update=True)
        if job.state == "draft":
            write(session, job)


def _report(shop: Workshop, job: Job, columns: dict[str, str]) -> dict[str, Any]:
    key = (job.id, columns["text"], columns["label"], columns["sheet"], language())
    if key not in _known:
        path = upload_folder(shop.home, job.business_id) / job.options["upload"]
        _known[key] = reading.looked_at(path, job.options["filename"], columns)
        while len(_known) > MOST_KEPT:
            _known.popitem(last=False)
    return _known[key]


def _wanted(job: Job, report: dict[str, Any]) -> dict[str, Any]:
    """What the form begins with: what was chosen before, else what fits most."""
    kept = job.options
    labels = list(report["labels"])
    chosen = [label for label in kept.get("never_automatic") or [] if label in labels]
    return {"name": kept["name"], "sheet": report["sheet"] if kept.get("sheet") else "",
            "target_error": kept.get("target_error", 0.05), "rungs": kept.get("rungs", RUNGS[0]),
            "never_automatic": chosen if "never_automatic" in kept else [label for label in labels if careful(label)],
            "none_label": kept["none_label"] if kept.get("none_label") in labels else
            "" if "none_label" in kept else none_of(labels)}
