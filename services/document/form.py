"""Reads an upload, multipart/form-data (RFC 7578), piece by piece and in constant memory. No I/O."""

import re
from collections.abc import Iterator
from urllib.parse import unquote

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from services.document.domain import Kind, UnknownDocumentKind
from services.runtime.errors import FieldViolation, InvalidArgument

FORM_DATA = "multipart/form-data"
MOST_BYTES_BESIDE_FILE = 64 * 1024
"""What a body may hold beside the file: headers, the kind, and what precedes and follows the parts."""
_LONGEST_SHOWN = 64
_EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*utf-8'[^']*'([^\s;]+)", re.IGNORECASE)  # RFC 5987


class InvalidMultipart(InvalidArgument):
    """The body is not the multipart/form-data it should be."""

    message = "The body is not valid multipart/form-data: {problem}."


class NotMultipart(InvalidMultipart):
    """The request's content type is another, or missing."""

    reason = InvalidMultipart.reason
    http_status = 415
    message = 'Send multipart/form-data with the parts kind and file: the content type is "{content_type}".'


class IncompleteUpload(InvalidArgument):
    """The body ended before its closing boundary."""

    message = "The upload ended before it was complete: the closing boundary is missing."


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
    """One upload, with the parts `kind` and `file` in any order."""

    def __init__(self, content_type: str) -> None:
        """Takes the request's content type. Raises NotMultipart or InvalidMultipart."""
        media_type, options = parse_options_header(content_type)
        if media_type != FORM_DATA:
            raise NotMultipart(content_type=media_type[:_LONGEST_SHOWN])
        try:
            self._parser = PushMultipartParser(options.get("boundary", ""))
        except MultipartError as error:
            raise InvalidMultipart(problem=error) from error
        self._part = ""
        self._beside = 0
        self._kind: bytearray | None = None
        self._file_name: str | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes the next piece of the body, cut anywhere. Yields what it holds of the file.

        Raises InvalidMultipart, UnexpectedPart or UnknownDocumentKind.
        """
        self._beside += len(data)
        try:
            for event in self._parser.parse(data) if data else ():  # to the parser, nothing is the end
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event and self._part == "file":
                    self._beside -= len(event)
                    yield event
                elif event and self._kind is not None:
                    self._kind += event
        except MultipartError as error:
            raise InvalidMultipart(problem=error) from error
        if self._beside > MOST_BYTES_BESIDE_FILE:
            raise InvalidMultipart(problem=f"it has more than {MOST_BYTES_BESIDE_FILE} bytes beside the file")

    def close(self) -> tuple[Kind, str]:
        """Ends the body. Returns the document's kind and the file's name, as sent.

        Raises IncompleteUpload, PartRequired or UnknownDocumentKind.
        """
        try:
            self._parser.close()
        except MultipartError as error:
            raise IncompleteUpload from error
        if self._kind is None:
            raise PartRequired("kind")
        if self._file_name is None:
            raise PartRequired("file")
        kind = self._kind.decode(errors="replace")
        if kind not in Kind.__members__:
            raise UnknownDocumentKind(kind[:_LONGEST_SHOWN])
        return Kind[kind], self._file_name

    def _begin(self, segment: MultipartSegment) -> None:
        self._part = segment.name or ""
        if self._part == "kind" and self._kind is None:
            self._kind = bytearray()
        elif self._part == "file" and self._file_name is None:
            extended = _EXTENDED_NAME.search(segment["Content-Disposition"])
            self._file_name = unquote(extended[1]) if extended else segment.filename or ""
        else:
            raise UnexpectedPart(self._part[:_LONGEST_SHOWN])
