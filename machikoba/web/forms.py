"""A form with a file, read strictly: it must come to its end, and what is no file must be text.

Starlette leaves out a part that is cut off, and reads bytes that are no UTF-8 as Latin-1: a name would be kept as nobody
wrote it.
"""
from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from machikoba.language import _
from machikoba.web.problems import RequestError, StoppedReading


class _Strict(MultiPartParser):
    ended = False

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is None:
            try:
                bytes(part.data).decode("utf-8")
            except UnicodeDecodeError:
                raise StoppedReading(RequestError(
                    422, "form_not_text", _("A field of the form is not text."), expected="UTF-8", found=part.field_name[:100],
                    next=_("Send the form as UTF-8."))) from None
        super().on_part_end()

    def on_end(self) -> None:
        super().on_end()
        self.ended = True


async def read_form(request: Request) -> None:
    """Reads the form of `request`, if it has one with files, for whoever asks for it next. Raises HTTPException."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return
    parser = _Strict(request.headers, request.stream())
    try:
        form = await parser.parse()
    except HTTPException:
        raise
    except Exception as error:  # no form, a client that has gone, or no room for the file: see problems.py
        raise HTTPException(400, "no form") from error
    if not parser.ended:
        await form.close()
        raise HTTPException(400, "the form does not end")
    request._form = form  # where `Request.form` keeps what it has read
