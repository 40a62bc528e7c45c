"""One error shape for every route: {"error": {code, message, expected, found, next}}, with the status that fits."""
from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from machikoba import files
from machikoba.errors import (
    AccessError,
    BackupError,
    BaseError,
    BundleError,
    DataError,
    MachikobaError,
    OptionError,
    RequirementError,
    StorageError,
    discreet,
)
from machikoba.language import _

log = logging.getLogger("machikoba.web")
FOR_PROGRAMS = re.compile(r"/v1/|--[a-z]|machikoba [a-z]|Bearer")
# Of a code where there is an entry, else of the kind of error.
BY_CODE = {
    "key_unknown": 401, "key_expired": 401, "sign_in_needed": 401, "wrong_password": 401, "too_many_attempts": 429,
    "business_unknown": 404, "person_unknown": 404, "mail_unusable": 422, "password_unusable": 422, "last_owner": 409,
    "label_unknown": 409, "bundle_missing": 404, "bundle_unknown": 404, "disk_full": 507, "store_full": 507, "busy": 429}
BY_KIND: tuple[tuple[type[MachikobaError], int], ...] = (
    (AccessError, 403), (DataError, 422), (OptionError, 422), (BundleError, 503), (BaseError, 503), (BackupError, 503),
    (StorageError, 503), (RequirementError, 409))
# Of every answer, also of those that no middleware sees.
HEADERS = {
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()", "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}


class RequestError(MachikobaError):
    """The request itself cannot be used."""

    def __init__(self, status: int, code: str, message: str, *, expected: str = "", found: str = "", next: str = "") -> None:
        super().__init__(code, message, expected=expected, found=found, next=next)
        self.status = status


class StoppedReading(HTTPException):
    """A problem met while the body is read, where only exceptions of this kind come through."""

    def __init__(self, problem: RequestError) -> None:
        super().__init__(problem.status, problem.message)
        self.problem = problem


class Told(BaseModel):
    """What happened, and what to do now. `code` is the same in every language."""

    code: str = Field(examples=["bundle_unknown"])
    message: str = Field(examples=["There is no bundle of this name."])
    expected: str = ""
    found: str = ""
    next: str = Field("", examples=["GET /v1/bundles lists those that are here."])


class Problem(BaseModel):
    error: Told


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These answers, for OpenAPI."""
    return {status: {"model": Problem, "description": {
        400: "The request cannot be read", 401: "Not signed in", 403: "Not allowed", 404: "Not here",
        405: "Not this method", 408: "The request came too slowly", 409: "It conflicts with what is there", 413: "Too large",
        415: "Not this content type", 422: "A value cannot be used", 429: "Too much at the moment", 503: "Not available now",
        507: "The disk is full"}[status]} for status in statuses}


def status_of(error: MachikobaError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, RequestError):
        return error.status
    return BY_CODE.get(error.code) or next((status for kind, status in BY_KIND if isinstance(error, kind)), 500)


def answer(error: MachikobaError) -> JSONResponse:
    """An error as a response. Where files and databases lie is the log's business, not the asker's."""
    status, headers = status_of(error), {}
    told = discreet(error)
    if told is not error:
        log.warning("%s: %s (%s)", error.code, error.message, error.found)
    patience = getattr(error, "retry_after_seconds", None)
    if patience or status == 503:
        headers["Retry-After"] = str(patience or 5)
    if status == 408:
        headers["Connection"] = "close"  # the rest of the request would be taken for the next one
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": told.to_dict()}, status, headers)


def for_people(told: dict[str, str]) -> dict[str, str]:
    """An error without the words that only a program or a command line can use."""
    return {name: "" if name in ("expected", "next") and FOR_PROGRAMS.search(words) else words for name, words in told.items()}


def unreadable(expected: str = "", found: str = "", status: int = 400) -> RequestError:
    """What is said of a request that is none."""
    return RequestError(status, "request_unreadable", _("The request cannot be read."), expected=expected, found=found,
                        next=_("/v1/openapi.json says what there is."))


def install(app: FastAPI, page: Callable[[Request, MachikobaError], Response]) -> None:
    """Makes every error of `app` take the shape; for people at a browser, that of a `page`."""

    def shown(request: Request, error: MachikobaError) -> Response:
        for_programs = request.url.path.startswith(("/v1/", "/healthz", "/metrics"))
        return answer(error) if for_programs or "text/html" not in request.headers.get("accept", "") else page(request, error)

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, MachikobaError)
        return shown(request, error)

    async def theirs(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error, StoppedReading):
            return shown(request, error.problem)
        if isinstance(error.__cause__, OSError) and error.__cause__.errno:  # a file that was sent found no room
            try:
                with files.storing(Path(gettempdir())):
                    raise error.__cause__
            except StorageError as refused:
                return shown(request, refused)
        if error.status_code == 400:
            return shown(request, unreadable())
        codes = {404: ("path_unknown", _("There is nothing here.")), 405: ("method_wrong", _("This cannot be done here."))}
        code, message = codes.get(error.status_code, ("request_wrong", str(error.detail)))
        made = shown(request, RequestError(error.status_code, code, message, next=_("/v1/openapi.json says what there is.")))
        made.headers.update(error.headers or {})
        return made

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # Where and what is wrong, never the value: it may be a customer's text.
        found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        if any(one["type"] in ("json_invalid", "json_type") for one in error.errors()):
            return shown(request, unreadable(expected="JSON", found=found))
        return shown(request, RequestError(422, "request_wrong", _("A value in the request cannot be used."), found=found,
                                   next=_("/v1/openapi.json says what there is.")))

    async def unforeseen(request: Request, error: Exception) -> Response:
        log.error("unforeseen error at %s %s", request.method, request.scope.get("route_path", ""), exc_info=error)
        made = shown(request, RequestError(500, "unforeseen", _("Something went wrong here."),
                                   next=_("Try again; if it stays so, look into the log.")))
        for name, value in HEADERS.items():
            made.headers.setdefault(name, value)
        return made

    app.add_exception_handler(MachikobaError, ours)
    app.add_exception_handler(HTTPException, theirs)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unforeseen)
