"""What a document is, which files are taken, and the checks that decide whether one is accepted. No I/O."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from services.runtime.errors import FieldViolation, InvalidArgument, NotFound, ResourceExhausted

LONGEST_FILE_NAME = 200
SMALLEST_IMAGE_PIXELS = 200
SMALLEST_PAGE_POINTS = 100
PDF = "application/pdf"


class DocumentNotFound(NotFound):
    """There is no such document."""

    message = "There is no document {document_id}."


class EmptyFile(InvalidArgument):
    """The file has no content."""

    message = "The file is empty."


class FileTooLarge(ResourceExhausted):
    """The file has more bytes than are taken."""

    http_status = 413
    message = "The file is larger than {limit} bytes."


class UnsupportedFileType(InvalidArgument):
    """The content is none of the types that are taken, whatever the file's name says."""

    http_status = 415
    message = "The file is none of these, by its content: JPEG, PNG, WebP, TIFF, PDF."


class UnknownDocumentKind(InvalidArgument):
    """The part `kind` names no kind of document."""

    message = "{kind} is no kind of document: send one of {kinds}."

    def __init__(self, kind: str) -> None:
        super().__init__(fields=[FieldViolation("kind", "names no kind")], kind=kind, kinds=", ".join(Kind.__members__))


class Kind(Enum):
    """What a document is. The values are those of document.v1.Document.Kind."""

    PASSPORT = 1
    ID_CARD = 2
    DRIVING_LICENCE = 3
    PROOF_OF_ADDRESS = 4


IDENTITY_KINDS = (Kind.PASSPORT, Kind.ID_CARD, Kind.DRIVING_LICENCE)


class State(Enum):
    """Whether a document was accepted. The values are those of document.v1.Document.State."""

    VERIFIED = 2
    REJECTED = 3


@dataclass(frozen=True, slots=True)
class File:
    """What is known of a file once all of it has gone by."""

    name: str
    content_type: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What opening a file has shown."""

    problem: str = ""
    """Why it cannot be read, in a sentence; empty: it can."""
    shorter_side: float = 0
    """Of the image, in pixels; of a PDF's first page, in points."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the checks look at."""

    content_type: str
    inspection: Inspection
    of_another_user: bool


@dataclass(frozen=True, slots=True)
class Check:
    """How one check came out."""

    name: str
    detail: str
    """What is wrong, in a sentence; empty when passed."""

    @property
    def passed(self) -> bool:
        """Whether the document is as it should be."""
        return not self.detail


def _readable(facts: Facts) -> str:
    return facts.inspection.problem


def _useful_size(facts: Facts) -> str:
    if facts.inspection.problem:
        return "Its size cannot be told."
    pdf = facts.content_type == PDF
    smallest, unit = (SMALLEST_PAGE_POINTS, "points") if pdf else (SMALLEST_IMAGE_PIXELS, "pixels")
    if facts.inspection.shorter_side < smallest:
        return f"Its shorter side has {facts.inspection.shorter_side:g} {unit}; {smallest} are needed."
    return ""


def _not_another_users(facts: Facts) -> str:
    return "Another user has uploaded the same file." if facts.of_another_user else ""


CHECKS: Mapping[str, Callable[[Facts], str]] = {
    "READABLE": _readable,
    "USEFUL_SIZE": _useful_size,
    "NOT_ANOTHER_USERS": _not_another_users,
}
"""Every check by name: a function that says what is wrong, or nothing."""


def check(facts: Facts) -> tuple[Check, ...]:
    """Runs all checks."""
    return tuple(Check(name, find(facts)) for name, find in CHECKS.items())


@dataclass(frozen=True, slots=True)
class Document:
    """A file that proves something about its owner."""

    id: str
    owner_id: str
    kind: Kind
    file: File
    checks: tuple[Check, ...]
    create_time: datetime

    @property
    def state(self) -> State:
        """Accepted when all checks passed."""
        return State.VERIFIED if all(one.passed for one in self.checks) else State.REJECTED


SIGNATURE_BYTES = 12
"""How much of a file's beginning tells its type."""
_SIGNATURES = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"II\*\0|MM\0\*"), "image/tiff"),
    (re.compile(rb"%PDF-"), PDF),
)


def content_type_of(beginning: bytes) -> str:
    """Returns the media type of a file by its first SIGNATURE_BYTES. Raises UnsupportedFileType."""
    for signature, content_type in _SIGNATURES:
        if signature.match(beginning):
            return content_type
    raise UnsupportedFileType


def display_name(name: str) -> str:
    """Returns a file name that can be shown: no folders, no control, invisible or direction-changing characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    visible = "".join(one for one in last if unicodedata.category(one) not in ("Cc", "Cf", "Zl", "Zp"))
    return visible.strip(" .")[:LONGEST_FILE_NAME] or "document"
