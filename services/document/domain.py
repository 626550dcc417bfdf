"""What a document is, which files are taken, and how they are shown. No I/O."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum

from services.runtime.errors import FieldViolation, InvalidArgument, NotFound, ResourceExhausted

LONGEST_FILE_NAME = 200
LONGEST_EXTENSION = 10
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}
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


class TooManyDocuments(ResourceExhausted):
    """The user keeps as many documents as anybody may."""

    message = "You keep {limit} documents already: delete one that is not needed."


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

    PENDING = 1
    VERIFIED = 2
    REJECTED = 3


class Outcome(Enum):
    """How a check came out. The values are those of document.v1.DocumentCheck.Outcome."""

    PASSED = 1
    FAILED = 2
    UNREADABLE = 3


@dataclass(frozen=True, slots=True)
class File:
    """What is known of a file once all of it has gone by."""

    name: str
    content_type: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What opening and reading a file has shown."""

    problem: str = ""
    """Why it cannot be opened, in a sentence; empty: it can."""
    shorter_side: float = 0
    """Of the image, in pixels; of a PDF's first page, in points."""
    mrz: tuple[str, ...] = ()
    """The lines of the machine-readable zone as they were read, of A-Z, 0-9 and <: 2 of 44 characters (TD3) or 3 of 30
    (TD1). Empty: there is none, or it could not be read."""
    mrz_found: bool = False
    """Whether there is a machine-readable zone, read or not."""


@dataclass(frozen=True, slots=True)
class Check:
    """How one check came out."""

    name: str
    outcome: Outcome
    detail: str
    """Why, in a sentence; empty when passed."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file that proves something about its owner."""

    id: str
    owner_id: str
    kind: Kind
    file: File
    create_time: datetime
    state: State = State.PENDING
    sequence: int = 1
    """Counts the states."""
    checks: tuple[Check, ...] = ()
    """Empty while it is PENDING."""
    expire_date: date | None = None
    """The last day on which it is valid; None: unknown."""


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
    """Returns a file name that can be shown: no folders, no control, invisible or direction-changing characters.

    Nor is it longer than LONGEST_FILE_NAME, but for its extension, or a device's (`con.pdf`, on Windows).
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    visible = "".join(one for one in last if unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    stem, dot, extension = unicodedata.normalize("NFC", visible).strip(" .").rpartition(".")
    if not dot or len(extension) > LONGEST_EXTENSION:
        stem, extension = stem + dot + extension, ""
    ending = f".{extension}" if extension else ""
    device = "_" if stem.partition(".")[0].strip().upper() in _DEVICES else ""
    return (device + stem)[: LONGEST_FILE_NAME - len(ending)] + ending or "document"
