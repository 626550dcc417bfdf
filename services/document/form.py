"""One upload: a form with the parts `kind` and `file`, each once and in any order. No I/O."""

from services.document.domain import Kind, UnknownDocumentKind
from services.document.parts import (
    LONGEST_SHOWN,
    MOST_BYTES_BESIDE_FILE,
    IncompleteUpload,
    InvalidMultipart,
    Part,
    Reader,
)
from services.runtime.errors import FieldViolation, InvalidArgument

_CHARSET = "_charset_"  # RFC 7578, 4.6: what the other fields are written in. Ours are ASCII.


class PartRequired(InvalidArgument):
    """A part is missing."""

    message = "The part {part} is missing."

    def __init__(self, part: str) -> None:
        super().__init__(fields=[FieldViolation(part, "is required", "required")], part=part)


class UnexpectedPart(InvalidArgument):
    """A part is there twice, or has a name that nobody asked for."""

    message = "The part {part} is one too many: send kind and file, each once."

    def __init__(self, part: str) -> None:
        super().__init__(fields=[FieldViolation(part, "is one too many")], part=part)


class Form:
    """Reads it piece by piece."""

    def __init__(self, content_type: str) -> None:
        """Takes the request's content type. Raises NotMultipart or InvalidMultipart."""
        self._reader = Reader(content_type)
        self._part = ""
        self._beside = 0
        self._kind: bytearray | None = None
        self._file_name: str | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Takes the next piece of the body, cut anywhere. Returns what it holds of the file.

        Raises InvalidMultipart, UnexpectedPart or UnknownDocumentKind.
        """
        file: list[bytes] = []
        self._beside += len(data)
        for event in self._reader.feed(data):
            if isinstance(event, Part):
                self._begin(event)
            elif self._part == "file":
                self._beside -= len(event)
                file.append(event)
            elif self._part == "kind" and self._kind is not None:
                self._kind += event
        if self._beside > MOST_BYTES_BESIDE_FILE:
            raise InvalidMultipart(problem=f"it has more than {MOST_BYTES_BESIDE_FILE} bytes beside the file")
        return file

    def close(self) -> tuple[Kind, str]:
        """Ends the body. Returns the document's kind and the file's name, as sent.

        Raises IncompleteUpload, PartRequired or UnknownDocumentKind.
        """
        if not self._reader.complete:
            raise IncompleteUpload
        if self._kind is None:
            raise PartRequired("kind")
        kind = _kind(self._kind)
        if self._file_name is None:
            raise PartRequired("file")
        return kind, self._file_name

    def _begin(self, part: Part) -> None:
        if self._part == "kind" and self._kind is not None:
            _kind(self._kind)  # it is whole: what is wrong with it need not wait for the file
        self._part = part.name
        if part.name == "kind" and self._kind is None:
            self._kind = bytearray()
        elif part.name == "file" and self._file_name is None:
            self._file_name = part.file_name or ""
        elif part.name != _CHARSET:
            raise UnexpectedPart(part.name[:LONGEST_SHOWN])


def _kind(value: bytearray) -> Kind:
    kind = value.decode(errors="replace")
    if kind not in Kind.__members__:
        raise UnknownDocumentKind(kind[:LONGEST_SHOWN])
    return Kind[kind]
