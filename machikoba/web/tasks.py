"""Routes of the work that takes minutes: start a tuning; follow any work, stop it, fetch what it made. The worker does it."""
from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, UploadFile
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from machikoba import files
from machikoba.desk import bundles, exports
from machikoba.language import _
from machikoba.store import jobs
from machikoba.store.people import Visitor
from machikoba.store.tables import Job, new_id
from machikoba.web.access import KnownFirst, Shop, Who
from machikoba.web.once import IdempotencyKey, once
from machikoba.web.problems import RequestError, documented
from machikoba.web.shapes import Tasks, TaskShown
from machikoba.web.workshop import Workshop

FILES = (".csv", ".tsv", ".xlsx", ".xlsm", ".xls", ".ods", ".jsonl")
MOST_WAITING = 20  # pieces of work of one business
SHOWN = 100
BLOCK_BYTES = 1 << 20
FIELDS = ("id", "kind", "state", "doing", "done", "total", "result", "error", "created_at", "started_at", "ended_at")
router = APIRouter(prefix="/v1/tasks", route_class=KnownFirst, tags=["tasks"])
Numbered = Annotated[str, InPath(description="The task's id.", pattern=r"^[0-9a-f]{32}$", examples=["0" * 32])]
Text = Annotated[str | None, Form(max_length=200)]


@router.post("", summary="Start a tuning", status_code=201, response_model=None,
             responses={201: {"model": TaskShown, "description": "It waits for the worker"},
                        **documented(400, 401, 403, 408, 409, 413, 415, 422, 429, 503, 507)})
async def start(file: UploadFile, name: Annotated[str, Form(min_length=1, max_length=100)], who: Who, shop: Shop,
                text: Text = None, label: Text = None, none_label: Text = None, rungs: Text = None, budget: Text = None,
                key: IdempotencyKey = None) -> JSONResponse:
    """Takes a file of labelled messages and makes a bundle called `name` of it; the file is deleted when the work ends."""
    who.must_be("owner")
    bundles.check_name(name)
    ending = ending_of(file.filename or "")
    options = {"name": name, "text": text, "label": label, "none_label": none_label, "rungs": rungs, "budget": budget}

    def write() -> JSONResponse:
        with kept_upload(shop.home, who.business_id, file.file, ending) as upload:
            made = once(shop, who, key, "tune", [options, files.digest(upload)],
                        lambda session: queued(session, who, "tune", {**options, "upload": upload.name}))
        if "Idempotent-Replay" in made.headers:
            upload.unlink(missing_ok=True)
        return made

    return await run_in_threadpool(write)


@router.get("", summary="List the tasks", response_model=Tasks, responses=documented(401, 403, 503))
async def list_tasks(who: Who, shop: Shop) -> Any:
    """The last hundred, newest first."""

    def read() -> list[Job]:
        with shop.database.reading() as session:
            return list(session.scalars(select(Job).where(Job.business_id == who.business_id, Job.state != "draft")
                                        .order_by(Job.created_at.desc(), Job.id).limit(SHOWN)))

    return {"tasks": [shown(job, who) for job in await run_in_threadpool(read)]}


@router.get("/{task}", summary="Follow a task", response_model=TaskShown, responses=documented(401, 403, 404, 422, 503))
async def follow(task: Numbered, who: Who, shop: Shop) -> Any:
    """How far it is."""
    return shown(await run_in_threadpool(_find, shop, who, task), who)


@router.post("/{task}/cancel", summary="Stop a task", response_model=TaskShown, responses=documented(401, 403, 404, 422, 503))
async def cancel(task: Numbered, who: Who, shop: Shop) -> Any:
    """It stops as soon as the worker looks up; one that has ended stays as it is."""
    who.must_be("owner")

    def write() -> Job:
        with shop.database.writing() as session:
            job = session.get(Job, task)
            if job is None or job.business_id != who.business_id or job.state == "draft":
                raise _unknown()
            jobs.cancel(session, job, who.who)
        delete_upload(shop.home, job)
        return job

    return shown(await run_in_threadpool(write), who)


@router.get("/{task}/file", summary="Fetch what a task made", response_class=StreamingResponse,
            responses={200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
                             "description": "The exported bundle"}, **documented(401, 403, 404, 409, 422, 503)})
async def fetch(task: Numbered, who: Who, shop: Shop) -> StreamingResponse:
    """The zip file of an export, for a week. Backups are never given out over the network."""
    who.must_be("owner")

    def find() -> tuple[IO[bytes], str, int]:
        job = _find(shop, who, task)
        if job.kind != "export":
            raise RequestError(404, "file_none", _("This task makes no file to fetch."), next=_("Fetch the file of an export."))
        if job.state != "done":
            raise RequestError(409, "file_not_ready", _("The file is not there yet."), found=job.state,
                               next=_("GET /v1/tasks/ID says how far it is."))
        try:
            file = exports.place(shop.home, who.business_id, task).open("rb")
        except FileNotFoundError:
            raise RequestError(404, "file_gone", _("The file is no longer there."), next=_("Export the bundle again."),
                               expected=_("at most {n} days old").format(n=exports.DAYS)) from None
        return file, f"{job.options['name']}.zip", os.fstat(file.fileno()).st_size

    file, name, size = await run_in_threadpool(find)
    return StreamingResponse(_blocks(file), media_type="application/zip", headers={
        "Content-Length": str(size), "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"})


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(BLOCK_BYTES):
            yield block


def ending_of(filename: str) -> str:
    """What a file's name ends with. Raises RequestError, file_unusable, for a kind that cannot be read."""
    ending = Path(filename).suffix.lower()
    if ending not in FILES:
        raise RequestError(422, "file_unusable", _("This kind of file cannot be read."), expected=", ".join(FILES),
                           found=ending[:20], next=_("Save it as .xlsx or .csv."))
    return ending


@contextmanager
def kept_upload(home: Path, business_id: str, file: IO[bytes], ending: str) -> Iterator[Path]:
    """Where a file that was sent waits, whole and on the disk; it goes again where the block that needs it fails."""
    upload = upload_folder(home, business_id) / f"{new_id()}{ending}"
    try:
        with files.storing(upload), files.draft_file(upload) as draft, draft.open("wb") as target:
            shutil.copyfileobj(file, target)
        yield upload
    except BaseException as error:
        # Where the store was lost at the last moment the task may be there in spite of it, and needs its file.
        if getattr(error, "code", "") != "store_unreachable":
            upload.unlink(missing_ok=True)
        raise


def upload_folder(home: Path, business_id: str) -> Path:
    """Where the files of a business wait for the worker."""
    return home / "businesses" / business_id / "uploads"


def shown(job: Job, who: Visitor) -> dict[str, Any]:
    """A task as the API shows it. What an error quotes of a file may be a customer's words: that is for signed-in staff only."""
    told = {field: getattr(job, field) for field in FIELDS}
    if job.error and not (who.signed_in and who.role in ("staff", "owner")):
        told["error"] = {**job.error, "expected": "", "found": ""}
    return told


def delete_upload(home: Path, job: Job) -> None:
    """Deletes the file of a task that was stopped before a worker had it: nobody else does."""
    if job.state == "cancelled" and (upload := job.options.get("upload")):
        (upload_folder(home, job.business_id) / Path(upload).name).unlink(missing_ok=True)


def must_have_room(session: Session, business_id: str) -> None:
    """Raises RequestError, tasks_waiting, where too many pieces of work are open."""
    if jobs.waiting(session, business_id) >= MOST_WAITING:
        raise RequestError(429, "tasks_waiting", _("Too many tasks are waiting."),
                           expected=_("at most {n}").format(n=MOST_WAITING), next=_("Wait until one has ended, or stop one."))


def queued(session: Any, who: Visitor, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """A task for the worker, as the API shows it. Raises RequestError, tasks_waiting."""
    must_have_room(session, who.business_id)
    job = jobs.add(session, who.business_id, kind, options, who.who)
    return TaskShown.model_validate(shown(job, who)).model_dump(mode="json")


def _find(shop: Workshop, who: Visitor, task: str) -> Job:
    with shop.database.reading() as session:
        job = session.get(Job, task)
    if job is None or job.business_id != who.business_id or job.state == "draft":
        raise _unknown()
    return job


def _unknown() -> RequestError:
    return RequestError(404, "task_unknown", _("There is no task of this number."),
                        next=_("GET /v1/tasks lists those that are here."))
