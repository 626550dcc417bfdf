"""Reads an upload, multipart/form-data (RFC 7578), piece by piece and in constant memory. No I/O."""

import re
from urllib.parse import unquote_to_bytes

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from services.document.domain import Kind, UnknownDocumentKind
from services.runtime.errors import FieldViolation, InvalidArgument

FORM_DATA = "multipart/form-data"
MOST_BYTES_BESIDE_FILE = 64 * 1024
"""What a body may hold beside the file: headers, the kind, and what precedes and follows the parts."""
LONGEST_SHOWN = 64
"""Characters of what a client wrote that it is told again."""
_LONGEST_PADDING = 256
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")  # RFC 2046, 5.1.1
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PARAMETER = re.compile(r';\s*([^\s;="]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)')  # RFC 6266, 4.1
_EXTENDED_VALUE = re.compile(
    r"(utf-8|iso-8859-1)'[^']*'((?:[!#$&+\-.^_`|~\w]|%[0-9a-f]{2})*)\s*", re.IGNORECASE | re.ASCII
)  # RFC 5987
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")
_CHARSET = "_charset_"  # RFC 7578, 4.6: the encoding of the other fields. Ours are ASCII.


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
            raise NotMultipart(content_type=media_type[:LONGEST_SHOWN])
        boundary = options.get("boundary", "")
        if not _BOUNDARY.fullmatch(boundary):
            problem = "is not 1 to 70 of the characters that RFC 2046 lists" if boundary else "is missing"
            raise InvalidMultipart(problem=f"the boundary {problem}")
        self._parser = PushMultipartParser(boundary)
        self._lines = _Lines(boundary)
        self._part = ""
        self._beside = 0
        self._kind: bytearray | None = None
        self._file_name: str | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Takes the next piece of the body, cut anywhere. Returns what it holds of the file.

        Raises InvalidMultipart, UnexpectedPart or UnknownDocumentKind.
        """
        self._beside += len(data)
        file = self._parse(self._lines.strip(data))
        self._beside -= sum(map(len, file))
        if self._beside > MOST_BYTES_BESIDE_FILE:
            raise InvalidMultipart(problem=f"it has more than {MOST_BYTES_BESIDE_FILE} bytes beside the file")
        return file

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
        kind = _kind(self._kind)
        if self._file_name is None:
            raise PartRequired("file")
        return kind, self._file_name

    def _parse(self, data: bytes) -> list[bytes]:
        file: list[bytes] = []
        try:
            for event in self._parser.parse(data) if data else ():  # to the parser, nothing is the end
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event and self._part == "file":
                    file.append(event)
                elif event and self._part == "kind" and self._kind is not None:
                    self._kind += event
                elif event is None and self._part == "kind" and self._kind is not None:
                    _kind(self._kind)  # what is wrong with it need not wait for the file
        except MultipartError as error:
            raise InvalidMultipart(problem=error) from error
        return file

    def _begin(self, segment: MultipartSegment) -> None:
        _require_plain(segment)
        self._part = segment.name or ""
        if self._part == "kind" and self._kind is None:
            self._kind = bytearray()
        elif self._part == "file" and self._file_name is None:
            self._file_name = _file_name(segment)
        elif self._part != _CHARSET:
            raise UnexpectedPart(self._part[:LONGEST_SHOWN])


class _Lines:
    """Takes off what RFC 2046 allows around boundaries and the parser misreads, at some cuts at least.

    That is what precedes the first boundary, and blanks at the end of a boundary's line.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = f"\r\n--{boundary}".encode()
        delimiter = re.escape(self._delimiter)
        self._padded = re.compile(b"(" + delimiter + rb")[ \t]{1,%d}(?=\r\n)" % _LONGEST_PADDING)
        self._open = re.compile(delimiter + rb"[ \t]{0,%d}\r?\Z" % _LONGEST_PADDING)
        self._held = b"\r\n"  # the first boundary needs no line before it
        """What the next piece decides on. Nothing that completes a body."""
        self._begun = False

    def strip(self, data: bytes) -> bytes:
        """Takes the next piece. Returns what it completes."""
        data = self._held + data
        first = data.find(self._delimiter)
        if first >= 0:
            data = self._padded.sub(rb"\1", data if self._begun else data[first:])
            self._begun = True
        end = len(data)
        open_line = self._open.search(data, max(0, end - len(self._delimiter) - _LONGEST_PADDING - 3))
        if open_line:
            end = open_line.start()
        else:
            begun = data.rfind(b"\r", max(0, end - len(self._delimiter)))
            if begun >= 0 and self._delimiter.startswith(data[begun:]):
                end = begun
        self._held = data[end:]
        return data[:end] if self._begun else b""


def _kind(value: bytearray) -> Kind:
    kind = value.decode(errors="replace")
    if kind not in Kind.__members__:
        raise UnknownDocumentKind(kind[:LONGEST_SHOWN])
    return Kind[kind]


def _require_plain(segment: MultipartSegment) -> None:
    """Raises InvalidMultipart for a part that says twice what it is, or that it is something to take apart first."""
    names = [name for name, _ in segment.headerlist]
    if any(_CONTROL.search(value) for _, value in segment.headerlist):
        raise InvalidMultipart(problem="a part's headers have control characters")
    if any(names.count(name) > 1 for name in ("Content-Disposition", "Content-Type", "Content-Transfer-Encoding")):
        raise InvalidMultipart(problem="a part has a header twice")
    parameters = [name for name, _ in _parameters(segment)]
    if len(parameters) > len(set(parameters)):
        raise InvalidMultipart(problem="a part's Content-Disposition has a parameter twice")
    if (segment.content_type or "").startswith("multipart/"):
        raise InvalidMultipart(problem="a part is a multipart itself")
    encoding = segment.header("Content-Transfer-Encoding", "").strip().lower()
    if encoding not in _PLAIN_ENCODINGS:
        raise InvalidMultipart(problem=f"a part is encoded as {encoding[:LONGEST_SHOWN]}: send it as it is")


def _parameters(segment: MultipartSegment) -> list[tuple[str, str]]:
    """The names, in lower case, and values of a disposition's parameters, as they are written."""
    return [(name.lower(), value) for name, value in _PARAMETER.findall(segment["Content-Disposition"])]


def _file_name(segment: MultipartSegment) -> str:
    name = segment.filename or ""
    if extended := _EXTENDED_VALUE.fullmatch(dict(_parameters(segment)).get("filename*", "")):
        name = unquote_to_bytes(extended[2]).decode(extended[1], errors="replace")
    if "\0" in name:
        raise InvalidMultipart(problem="the file's name has a null character")
    return name
