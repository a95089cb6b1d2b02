"""Messages between processes, through a socket.

A message is a pickle. Large buffers, such as the data of NumPy arrays, follow it one by one and are never
copied into the pickle. So nothing takes up ``/dev/shm``, a descriptor or a temporary file.
"""

import errno
import pickle
import socket
import struct
from dataclasses import dataclass
from typing import Any, Literal

# The length of the pickle and the number of buffers, followed by the length of each buffer.
# A heartbeat is a frame of zeros.
FRAME, LENGTH = struct.Struct("<QI"), struct.Struct("<Q")
HEARTBEAT = [FRAME.pack(0, 0)]
# Errors of the machine, which ran short of something, and not of the task.
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN)

Frame = list[Any]


@dataclass(frozen=True)
class Message:
    """A message from a worker process.

    ``content`` is the result (done), the exception (raised), the reason (short) or None (lost).
    """

    kind: Literal["done", "raised", "short", "lost"]
    content: Any


def is_shortage(error: BaseException) -> bool:
    """Whether ``error`` means that memory or descriptors ran out."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in SHORTAGES)


def describe(error: BaseException) -> str:
    """A short description of an error, for the user."""
    if isinstance(error, MemoryError):
        return "out of memory"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def to_frame(content: Any) -> Frame:
    """Pickle ``content`` to a list of parts to send. Large buffers are not copied."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    parts = [buffer.raw() for buffer in buffers]
    sizes = b"".join(LENGTH.pack(part.nbytes) for part in parts)
    return [FRAME.pack(len(head), len(parts)) + sizes, head, *parts]


def send(connection: socket.socket, frame: Frame) -> None:
    """Send a frame."""
    for part in frame:
        connection.sendall(part)


def receive(connection: socket.socket) -> Any:
    """Receive the content of a frame; None for a heartbeat.

    Raises:
        EOFError: the connection is closed.
    """
    length, count = FRAME.unpack(_receive_bytes(connection, FRAME.size))
    if not length:
        return None
    sizes = [LENGTH.unpack(_receive_bytes(connection, LENGTH.size))[0] for _ in range(count)]
    head = _receive_bytes(connection, length)
    return pickle.loads(head, buffers=[_receive_bytes(connection, size) for size in sizes])


def _receive_bytes(connection: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return content
