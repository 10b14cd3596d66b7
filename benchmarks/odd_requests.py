"""Requests that a server has to take or refuse: files as the page sends them, and JSON that is not wanted."""

from benchmarks.http_load import HOST

MEGABYTE = 1 << 20
_BOUNDARY = "a-boundary"


def upload(content: bytes, name: str = "rows.txt", headers: str = "", kind: str = "form-data") -> bytes:
    """The bytes of the request with which the page sends a file."""
    part = f'--{_BOUNDARY}\r\nContent-Disposition: {kind}; name="files"; filename="{name}"\r\n\r\n'
    body = part.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {HOST}\r\n{headers}"
    head += f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def other_json() -> dict[str, bytes]:
    """Bodies of about a megabyte that are JSON, or nearly, and not what is wanted."""

    def texts(value: bytes, count: int) -> bytes:
        return b'{"texts":[%s]}' % b",".join([value] * count)

    return {
        "lists": texts(b"[]", 340_000),
        "objects": texts(b"{}", 340_000),
        "numbers": texts(b"1", 500_000),
        "blanks": texts(b'""', 340_000),
        "one number": b'{"texts":[%s]}' % (b"9" * MEGABYTE)[:-20],
        "one key": b'{"%s":1}' % (b"k" * MEGABYTE)[:-20],
        "deep": b"[" * (MEGABYTE - 20),
        "deep objects": b'{"a":' * 200_000,
        "escapes": texts(b'"%s"' % (b"\\u00e9" * 170_000), 1),
        "halves": texts(b'"%s"' % (b"\\ud83d" * 170_000), 1),
        "the same key": b"{%s}" % b",".join([b'"texts":[]'] * 90_000),
        "a string": b'"%s"' % (b"x" * MEGABYTE)[:-20],
        "no end": b'{"texts":["' + (b"x" * MEGABYTE)[:-20],
        "no UTF-8": texts(b'"%s"' % (b"\xff" * 900_000), 1),
        "words": texts(b'"%s"' % (b"a " * 5_000), 90),
        "most words": texts(b'"%s"' % ("\u4e2d".encode() * 14), 1_000),
        "marks": b'{"texts":[%s]}' % b",".join([b"[]"] * 49_990),
    }
