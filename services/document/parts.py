"""multipart/form-data (RFC 7578, RFC 2046) as a stream of parts: piece by piece and in constant memory. No I/O.

By the book: what is legal is read, however it is cut, and what is not is refused, since no two readers guess alike.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from services.runtime.errors import InvalidArgument

FORM_DATA = "multipart/form-data"
MOST_BYTES_BESIDE_FILE = 64 * 1024
"""What a body may hold beside the file: headers, fields, and what precedes and follows the parts."""
LONGEST_BOUNDARY = 70
LONGEST_HEADERS = 8 * 1024
MOST_HEADERS = 16
LONGEST_SHOWN = 64
_LONGEST_PADDING = 256

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NEXT = r"[ \t]*(?=;|\Z)"
# The value is a quoted string; one with a backslash that quotes nothing, as browsers write it; or bare.
_PARAMETER = re.compile(
    rf';[ \t]*(?:({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"{_NEXT}|"([^"]*)"{_NEXT}|([^\s;"]+){_NEXT})|{_NEXT})'
)
_MEDIA_TYPE = re.compile(rf"({_WORD}/{_WORD}){_NEXT}")
_DISPOSITION = re.compile(rf"({_WORD}){_NEXT}")
_PADDING = re.compile(rb"[ \t]*")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_HEADER = re.compile(rf"({_WORD}):[ \t]*(.*)")
_FOLD = re.compile(r"\r\n(?=[ \t])")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'((?:[!#$&+\-.^_`|~0-9A-Za-z]|%[0-9A-Fa-f]{2})*)", re.IGNORECASE)
_QUOTED_PAIR = re.compile(r"\\(.)")
_BROWSERS_ESCAPE = re.compile("%22|%0D|%0A", re.IGNORECASE)  # WHATWG: these three and no others
_ONCE = ("content-disposition", "content-type", "content-transfer-encoding")
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")


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


@dataclass(frozen=True, slots=True)
class Part:
    """A part that begins: what its headers say."""

    name: str
    file_name: str | None
    """As it was sent, with folders and whatever else; None where there is none."""


class Reader:
    """Takes one body apart."""

    def __init__(self, content_type: str) -> None:
        """Takes the request's content type. Raises NotMultipart or InvalidMultipart."""
        media_type = _MEDIA_TYPE.match(content_type)
        if media_type is None or media_type[1].lower() != FORM_DATA:
            raise NotMultipart(content_type=content_type.partition(";")[0].strip()[:LONGEST_SHOWN])
        boundary = _parameters(content_type, media_type.end(), _unquoted).get("boundary", "")
        if not _BOUNDARY.fullmatch(boundary):
            problem = f"is not 1 to {LONGEST_BOUNDARY} of RFC 2046's characters" if boundary else "is missing"
            raise InvalidMultipart(problem=f"the boundary {problem}")
        self._delimiter = f"\r\n--{boundary}".encode()
        self._buffer = b"\r\n"  # the first boundary needs no line before it
        self._at = 0
        self._in_part = False
        self._events: list[Part | bytes] = []
        self._state: Callable[[], bool] = self._content
        """Takes from the buffer what comes next; tells whether there may be more in it."""
        self.complete = False
        """Whether the closing boundary was read."""

    def feed(self, data: bytes) -> list[Part | bytes]:
        """Takes the next piece of the body. Returns the parts that begin in it, and after each its content in pieces.

        Raises InvalidMultipart.
        """
        self._buffer = self._buffer + data  # nothing plus data is data itself, not a copy
        self._at = 0
        while self._state():
            pass
        self._buffer = self._buffer[self._at :]
        events, self._events = self._events, []
        return events

    def _content(self) -> bool:
        """Of a part, or of what precedes the first: up to the next delimiter."""
        found = self._buffer.find(self._delimiter, self._at)
        end = self._possible_delimiter() if found < 0 else found
        if self._in_part and end > self._at:
            self._events.append(self._buffer[self._at : end] if self._at or end < len(self._buffer) else self._buffer)
        self._at = end
        if found < 0:
            return False
        self._at += len(self._delimiter)
        self._state = self._end_of_boundary
        return True

    def _possible_delimiter(self) -> int:
        """Returns where a delimiter may have begun that is cut by the end of the buffer, or that end."""
        end = len(self._buffer)
        begun = self._buffer.rfind(b"\r", max(self._at, end - len(self._delimiter) + 1))
        return begun if begun >= 0 and self._delimiter.startswith(self._buffer[begun:]) else end

    def _end_of_boundary(self) -> bool:
        """Two hyphens close the body; else padding, and the end of the line, at which headers begin."""
        if self._buffer.startswith(b"--", self._at):
            self._at += 2
            self.complete = True
            self._state = self._end_of_last_line
            return True
        if self._buffer[self._at :] == b"-":
            return False
        return self._end_of_line(then=self._headers)

    def _end_of_last_line(self) -> bool:
        return self._end_of_line(then=self._epilogue)

    def _end_of_line(self, then: Callable[[], bool]) -> bool:
        padding = _PADDING.match(self._buffer, self._at)
        end = padding.end() if padding else self._at
        rest = self._buffer[end : end + 2]
        if end - self._at > _LONGEST_PADDING or not b"\r\n".startswith(rest):
            raise InvalidMultipart(problem="there is something behind a boundary on its line")
        if len(rest) < 2:
            return False
        self._at, self._state = end, then  # the end of the line may be the one before the next delimiter
        return True

    def _headers(self) -> bool:
        blank = self._buffer.find(b"\r\n\r\n", self._at)
        delimiter = self._buffer.find(self._delimiter, self._at)
        bare = 0 <= delimiter < blank or blank < 0 <= delimiter  # headers alone are a part, too
        end = delimiter if bare else blank
        if (len(self._buffer) if end < 0 else end) - self._at > LONGEST_HEADERS:
            raise InvalidMultipart(problem=f"a part's headers have more than {LONGEST_HEADERS} bytes")
        if end < 0:
            return False
        self._events.append(_part(self._buffer[self._at + 2 : end]))
        self._in_part = True
        self._at, self._state = (end, self._content) if bare else (end + 2, self._beginning)
        return True

    def _beginning(self) -> bool:
        """The blank line ends the headers, and may end the part as well."""
        beginning = self._buffer[self._at : self._at + len(self._delimiter)]
        if beginning != self._delimiter:
            if self._delimiter.startswith(beginning):
                return False
            self._at += 2
        self._state = self._content
        return True

    def _epilogue(self) -> bool:
        self._at = len(self._buffer)
        return False


def _part(block: bytes) -> Part:
    """Reads a part's headers. Raises InvalidMultipart."""
    headers = _fields(block)
    disposition = headers.get("content-disposition", "")
    kind = _DISPOSITION.match(disposition)
    if kind is None or kind[1].lower() != "form-data":
        raise InvalidMultipart(problem="a part's Content-Disposition is not form-data")
    if headers.get("content-type", "").lower().startswith("multipart/"):
        raise InvalidMultipart(problem="a part is a multipart itself")
    if (encoding := headers.get("content-transfer-encoding", "").strip().lower()) not in _PLAIN_ENCODINGS:
        raise InvalidMultipart(problem=f"a part is encoded as {encoding[:LONGEST_SHOWN]}: send it as it is")
    parameters = _parameters(disposition, kind.end(), _unescaped)
    if not parameters.get("name"):
        raise InvalidMultipart(problem="a part has no name")
    file_name = parameters.get("filename")
    if (extended := _extended(parameters.get("filename*", ""))) is not None:
        file_name = extended
    if file_name and "\0" in file_name:
        raise InvalidMultipart(problem="a file name holds a null character")
    return Part(parameters["name"], file_name)


def _fields(block: bytes) -> Mapping[str, str]:
    """Reads header lines. Raises InvalidMultipart."""
    headers: dict[str, str] = {}
    try:
        lines = _FOLD.sub("", block.decode()).split("\r\n") if block else []
    except UnicodeDecodeError as error:
        raise InvalidMultipart(problem="a part's headers are not UTF-8") from error
    if len(lines) > MOST_HEADERS:
        raise InvalidMultipart(problem=f"a part has more than {MOST_HEADERS} headers")
    for line in lines:
        field = _HEADER.fullmatch(line)
        if field is None or _CONTROL.search(line):
            raise InvalidMultipart(problem="a part has a line that is no header")
        name = field[1].lower()
        if name in headers and name in _ONCE:
            raise InvalidMultipart(problem=f"a part has {field[1]} twice")
        headers[name] = field[2]
    return headers


def _parameters(text: str, start: int, unquote: Callable[[str], str]) -> Mapping[str, str]:
    """Reads the parameters of a header from `start` on, by their names in lower case. Raises InvalidMultipart."""
    found: dict[str, str] = {}
    while start < len(text):
        match = _PARAMETER.match(text, start)
        if match is None:
            raise InvalidMultipart(problem="a header has parameters that cannot be read")
        name, *values = match.groups()
        start = match.end()
        if name is None:  # nothing between two semicolons
            continue
        if name.lower() in found:
            raise InvalidMultipart(problem=f"a header has the parameter {name[:LONGEST_SHOWN]} twice")
        found[name.lower()] = unquote(next(value for value in values if value is not None))
    return found


def _unquoted(value: str) -> str:
    """Undoes quoted pairs."""
    return _QUOTED_PAIR.sub(r"\1", value)


def _unescaped(value: str) -> str:
    """Undoes what clients do to names. A backslash that stands before no quote is one: browsers do not quote theirs."""
    if '\\"' in value:
        return _unquoted(value)
    return _BROWSERS_ESCAPE.sub(lambda escape: unquote_to_bytes(escape[0]).decode(), value)


def _extended(value: str) -> str | None:
    """Reads an extended value (RFC 5987). Returns None for one that is none, or is in an encoding nobody must know."""
    match = _EXTENDED.fullmatch(value)
    if match is None:
        return None
    try:
        return unquote_to_bytes(match[2]).decode(match[1])
    except UnicodeDecodeError:
        return None
