"""What nobody sends who means well: bodies, queries, headers and forms that no method of the contract takes."""

_MOST = 256 * 1024

BODIES: dict[str, bytes] = {
    # Not one JSON object.
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a text": b'"x"',
    "an array": b"[]",
    "an object in an array": b"[{}]",
    "nothing but blanks": b" \n ",
    "half an object": b'{"a',
    "an object that does not end": b'{"a": 1',
    "two objects": b"{}{}",
    "two lines of them": b'{}\n{"a": 1}',
    "rubbish behind": b"{} x",
    "a null byte behind": b"{}\0",
    "rubbish": b"\x00\x01\x02\xfe",
    "a form": b"a=1&b=2",
    "XML": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    "YAML": b"a: 1\n",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56\x02\x00",
    "a message of gRPC": b"\x00\x00\x00\x00\x02\x0a\x00",
    # What some parsers take for JSON.
    "single quotes": b"{'a': 'b'}",
    "a name without quotes": b"{a: 1}",
    "a comma behind the last": b'{"a": 1,}',
    "a comma before the first": b'{,"a": 1}',
    "two commas": b'{"a": 1,,"b": 2}',
    "no colon": b'{"a" 1}',
    "a comment": b'{"a": 1 /* b */}',
    "a comment to the end": b'{"a": 1} // b',
    "a comment of a shell": b'# b\n{"a": 1}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "a plus": b'{"a": +1}',
    "a leading zero": b'{"a": 01}',
    "hexadecimal": b'{"a": 0x10}',
    "no digit before the point": b'{"a": .5}',
    "no digit behind it": b'{"a": 5.}',
    "words of Python": b'{"a": True, "b": None}',
    "undefined": b'{"a": undefined}',
    "a tab in a text": b'{"a": "\t"}',
    "a line break in a text": b'{"a": "\n"}',
    "an escape that is none": b'{"a": "\\x41"}',
    "half an escape": b'{"a": "\\u12"}',
    "a prefix against JSON hijacking": b")]}',\n{}",
    # Not UTF-8.
    "a byte that is no UTF-8": b'{"a": "\xff"}',
    "an overlong slash": b'{"a": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "beyond Unicode": b'{"a": "\xf4\x90\x80\x80"}',
    "half a character": b'{"a": "\xe2\x82"}',
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    # Members that nobody has.
    "an unknown member": b'{"colour": "red"}',
    "one with no name": b'{"": 1}',
    "a type": b'{"@type": "type.googleapis.com/google.protobuf.Any"}',
    "a prototype": b'{"__proto__": {"admin": true}}',
    "a constructor": b'{"constructor": {"prototype": {}}}',
    "the number of a field": b'{"1": "usr_1"}',
    "a name with a null byte": b'{"a\\u0000b": 1}',
    "a name that is half a character": b'{"\\ud800": 1}',
    "a name with a quote": b'{"a\\"b<script>": 1}',
    "a member twice": b'{"colour": 1, "colour": 1}',
    # Bombs.
    "arrays in arrays": b"[" * 100_000,
    "arrays in arrays, all closed": b"[" * 5_000 + b"]" * 5_000,
    "objects in objects": b'{"a":' * 50_000,
    "objects in objects, all closed": b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
    "a long number": b'{"a": ' + b"9" * 250_000 + b"}",
    "a number that overflows": b'{"a": 1e999999999}',
    "many long numbers": b'{"a": [' + b"9" * 4_000 + (b"," + b"9" * 4_000) * 60 + b"]}",
    "many members": b"{" + b",".join(b'"%d": 1' % number for number in range(20_000)) + b"}",
    "many empty objects": b'{"a": [' + b"{}," * 80_000 + b"{}]}",
    "many empty texts": b'{"a": [' + b'"",' * 80_000 + b'""]}',
    "a long name": b'{"' + b"a" * 250_000 + b'": 1}',
    "too much": b'{"a": "' + b"x" * (_MOST + 1) + b'"}',
}

CONTENT_TYPES = (
    "",
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/jsonp",
    "application/json; charset=utf-16",
    "application/json; charset=latin-1",
    "application/json, text/plain",
    "application/json; boundary=x",
    "application/json;charset=utf-8;charset=utf-16",
    "application/octet-stream",
    "*/*",
)

QUERIES = (
    "colour=red",
    "=1",
    "%00=1",
    "%ff=1",
    "a.b.c=1",
    "a[]=1",
    "__proto__.admin=true",
    "a=%ff",
    "'%20OR%201=1",
    "x=" + "y" * 4000,
    "&".join(f"a{number}=1" for number in range(500)),
)

TEXTS = (
    "\0",
    "a\x00b",
    "\x1b[2J\x1b]0;owned\x07",
    "\x7f\x85\x9b",
    "\uffff",
    "x" * 200_000,
    "\u202e" * 1000,
    "e" + "\u0301" * 5000,
    "🙂" * 5000,
    "'; DROP TABLE users; --",
    "${jndi:ldap://x}{{7*7}}%n%s",
    "<script>alert(1)</script>",
    "../../../../etc/passwd",
    "\r\nSet-Cookie: a=b",
)
"""For any field that is text."""

SEGMENTS = (
    ".",
    "..",
    "~",
    "-",
    "x" * 4000,
    "pay_1%00",
    "pay_1%2F..",
    "%ff",
    "%c0%af",
    "%0d%0aSet-Cookie:%20a=b",
    "me%3Fx=1",
    "{id}",
    "1e9",
    "\\",
    "%",
    "*",
    "null",
)
"""For any segment of a path that is an id."""

HEADERS: tuple[tuple[str, bytes], ...] = tuple(
    (name, value)
    for name in (
        *("idempotency-key", "last-event-id", "content-digest", "range", "if-range", "if-none-match", "traceparent"),
        *("grpc-timeout", "grpc-encoding", "te", "accept", "content-encoding", "x-request-id", "prefer"),
    )
    for value in (b"", b"\xff\xfe", b'"', b"-1", b"9" * 400, b"a,b;c=d")
)
"""That a service may read."""

MULTIPART = "multipart/form-data; boundary=x"
_PART = b'Content-Disposition: form-data; name="%s"'
_KIND = _PART % b"kind" + b"\r\n\r\nPASSPORT\r\n"
_FILE = _PART % b"file" + b'; filename="a.png"\r\n\r\n\x89PNG\r\n\x1a\n\r\n'


def _form(*parts: bytes) -> bytes:
    return b"".join(b"--x\r\n" + part for part in parts) + b"--x--\r\n"


FORMS: dict[str, tuple[str, bytes]] = {
    name: (content_type, body)
    for name, content_type, body in (
        ("nothing", MULTIPART, b""),
        ("no boundary", "multipart/form-data", _form(_KIND, _FILE)),
        ("an empty boundary", 'multipart/form-data; boundary=""', _form(_KIND, _FILE)),
        ("a long boundary", "multipart/form-data; boundary=" + "x" * 4000, _form(_KIND, _FILE)),
        ("two boundaries", "multipart/form-data; boundary=x; boundary=y", _form(_KIND, _FILE)),
        ("a boundary with a null byte", 'multipart/form-data; boundary="x%00"', _form(_KIND, _FILE)),
        ("another boundary", "multipart/form-data; boundary=y", _form(_KIND, _FILE)),
        ("another multipart", "multipart/mixed; boundary=x", _form(_KIND, _FILE)),
        ("JSON", "application/json", b'{"content": {"data": "AAAA"}}'),
        ("a form", "application/x-www-form-urlencoded", b"kind=PASSPORT&file=x"),
        ("no type", "", _form(_KIND, _FILE)),
        ("rubbish", MULTIPART, b"\x00\xff" * 5000),
        ("only the end", MULTIPART, b"--x--\r\n"),
        ("no end", MULTIPART, _form(_KIND, _FILE)[:-6]),
        ("only line feeds", MULTIPART, _form(_KIND, _FILE).replace(b"\r\n", b"\n")),
        ("no kind", MULTIPART, _form(_FILE)),
        ("no file", MULTIPART, _form(_KIND)),
        ("two files", MULTIPART, _form(_KIND, _FILE, _FILE)),
        ("two kinds", MULTIPART, _form(_KIND, _KIND, _FILE)),
        ("a kind that is none", MULTIPART, _form(_KIND.replace(b"PASSPORT", b"VISA"), _FILE)),
        ("a kind by number", MULTIPART, _form(_KIND.replace(b"PASSPORT", b"1"), _FILE)),
        ("a kind that is no text", MULTIPART, _form(_KIND.replace(b"PASS", b"\xff\0"), _FILE)),
        ("a long kind", MULTIPART, _form(_KIND.replace(b"PASS", b"P" * 90_000), _FILE)),
        ("a third part", MULTIPART, _form(_KIND, _PART % b"ownerId" + b"\r\n\r\nusr_1\r\n", _FILE)),
        ("a thousand parts", MULTIPART, _form(*[_KIND] * 1000)),
        ("a name with a line break", MULTIPART, _form(_PART % b"ki\r\nnd" + b"\r\n\r\n\r\n")),
        ("a name with a null byte", MULTIPART, _form(_KIND, _FILE.replace(b"a.png", b"a\0"))),
        ("a part without a name", MULTIPART, _form(b"X: y\r\n\r\nz\r\n")),
        ("a header without an end", MULTIPART, b"--x\r\nX: " + b"y" * 500_000),
        ("a thousand headers", MULTIPART, _form(b"X: y\r\n" * 1000 + _KIND, _FILE)),
        ("base64", MULTIPART, _form(_KIND, b"Content-Transfer-Encoding: base64\r\n" + _FILE)),
        ("a form in a form", MULTIPART, _form(_KIND, _FILE + _form(_KIND, _FILE))),
        ("an empty file", MULTIPART, _form(_KIND, _FILE.replace(b"\x89PNG\r\n\x1a\n", b""))),
        ("a script", MULTIPART, _form(_KIND, _FILE.replace(b"\x89PNG\r\n\x1a\n", b"#!/bin/sh\n"))),
    )
}  # fmt: skip
"""Forms that hold no document: their Content-Type and body."""
