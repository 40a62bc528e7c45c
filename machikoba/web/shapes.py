"""What the API takes and gives, for checking and for OpenAPI."""
from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MOST_TEXTS, LONGEST_TEXT = 1_000, 20_000  # texts in a request; characters of one


def _storable(text: str) -> str:
    text.encode()  # half a character pair is a ValueError of its own kind
    return text.replace("\x00", "\ufffd")  # which not every database keeps, and nobody types


def whole(number: Any) -> Any:
    """A number as Python counts it."""
    return int(number) if isinstance(number, float) and number.is_integer() else number  # to JSON, 30.0 is an integer too


Storable = Annotated[str, AfterValidator(_storable)]
Message = Annotated[Storable, Field(max_length=LONGEST_TEXT)]
Name = Annotated[Storable, Field(min_length=1, max_length=100)]
Role = Literal["owner", "staff", "viewer"]


class Asked(BaseModel):
    """What is asked of the API; what it does not know it refuses."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Messages(Asked):
    """desk: what is left to a person goes to the desk, and a share of the rest is audited there."""

    texts: list[Message] = Field(max_length=MOST_TEXTS, examples=[["駐車場はありますか", "朝食のアレルギー対応について"]])
    desk: bool = False


class Predicted(BaseModel):
    """answered: told automatically; would_answer: what an apprentice would do alone."""

    label: str = Field(examples=["駐車場"])
    confidence: float = Field(examples=[0.973], ge=0, le=1)
    answered: bool
    would_answer: bool


class Predictions(BaseModel):
    bundle: str
    predictions: list[Predicted]


class BundleShown(BaseModel):
    """qualified: it answers alone; else it is an apprentice, and a person confirms each. One that was certified on another
    machine is qualified here once its proof was replayed, which is when it is first asked."""

    name: str
    task: str
    labels: list[str]
    qualified: bool
    created_at: datetime


class Bundles(BaseModel):
    bundles: list[BundleShown]


class CorrectionAsked(Asked):
    text: Message = Field(min_length=1, examples=["大型バイクは停められますか"])
    label: Name = Field(examples=["駐車場"])
    predicted: Name | None = None
    confidence: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)


class Kept(BaseModel):
    id: str


class CorrectionShown(BaseModel):
    id: str
    text: str
    label: str
    predicted: str | None
    confidence: float | None
    made_by: str
    created_at: datetime


class Corrections(BaseModel):
    corrections: list[CorrectionShown]


class TaskShown(BaseModel):
    """A piece of work. state: queued, running, done, failed or cancelled. done of total: how far it is with `doing`."""

    id: str
    kind: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    doing: str
    done: int
    total: int
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Tasks(BaseModel):
    tasks: list[TaskShown]


class VersionShown(BaseModel):
    """in_use_since: null while another answers. kept: it can be used again. facts: figures of its test, what it learnt from, how
    it compares with the one before, and why it was taken into use or not."""

    number: int
    made_at: datetime
    in_use_since: datetime | None
    kept: bool
    facts: dict[str, Any]


class Versions(BaseModel):
    versions: list[VersionShown]


class BackupAsked(Asked):
    """keep_days: after so many the next backup deletes it; null: only a person does."""

    keep_days: Annotated[int, Field(ge=1, le=3_650), BeforeValidator(whole)] | None = Field(30, examples=[30])


class BackupShown(BaseModel):
    """here: in the server's own folder; else it was written elsewhere and may have been deleted there since."""

    id: str
    made_at: datetime
    kept_until: datetime | None
    bytes: int
    encrypted: bool
    here: bool


class Backups(BaseModel):
    backups: list[BackupShown]


class KeyAsked(Asked):
    name: Name = Field(examples=["受付のプログラム"])
    role: Literal["staff", "viewer"] = "staff"
    days: Annotated[int, Field(ge=1, le=3_650), BeforeValidator(whole)] | None = None


class KeyShown(BaseModel):
    """start: the first characters of the secret, by which to know it again."""

    id: str
    name: str
    role: Role
    start: str
    created_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None


class KeyMade(KeyShown):
    """secret: shown this once."""

    secret: str


class Keys(BaseModel):
    keys: list[KeyShown]


class Health(BaseModel):
    status: Literal["ok", "stopping"]
    version: str
