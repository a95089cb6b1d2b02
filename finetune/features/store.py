"""The feature store: rows of features, each under the identity of its image, in memory or on disk.

On disk a store is a folder of *blocks*: safetensors files of up to ``BLOCK_ROWS`` rows and the identities of
their images. The name of a block is the SHA-256 of its bytes. A block appears under its name only when it is
complete, and its hash is checked when the store is opened. A torn, changed or foreign file is removed with a
warning, and its rows are computed again. After an interruption, the complete blocks are used. Several
processes may fill one folder, because none changes the files of another.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from finetune.data.cache.contents import ABOUT
from finetune.disk.atomic import TEMPORARY, write_atomic
from finetune.disk.regular import open_regular
from finetune.features.extract import RowSpec

log = logging.getLogger("finetune")

# An interrupted filling loses at most one block.
BLOCK_ROWS = 512
BLOCK_BYTES = 64 << 20
SUFFIX = ".safetensors"
# A temporary file older than this many seconds was left behind by a killed process.
ABANDONED = 3600.0

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]


class FeatureStore:
    """Rows of one :class:`~finetune.features.extract.RowSpec`, each under the 32-byte identity of its image.

    If the disk cannot be written, the rows stay in memory, with a warning.

    Args:
        folder: where the blocks are; created if missing. None: rows stay in memory.
        about: describes the content, for ``finetune cache info``.
    """

    def __init__(
        self, spec: RowSpec, folder: Path | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        self.spec = spec
        self.folder = folder
        self._blocks: list[Bytes] = []
        self._place: dict[bytes, tuple[int, int]] = {}
        self._new_ids: list[bytes] = []
        self._new_rows: list[Bytes] = []
        if folder is not None:
            self._open(folder, dict(about or {}))

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._place

    def add(self, identities: Sequence[bytes], rows: Tensor) -> None:
        """Store ``rows`` (N, ...), one per identity. The last of them can be read after :meth:`flush`."""
        flat = rows.detach().cpu().contiguous().reshape(len(identities), -1).view(torch.uint8).numpy()
        self._new_ids.extend(identities)
        self._new_rows.extend(flat)
        # A fixed number per block: interruptions do not change which rows share a block.
        most = max(1, min(BLOCK_ROWS, BLOCK_BYTES // self.spec.nbytes))
        while len(self._new_ids) >= most:
            self._write(most)

    def flush(self) -> None:
        """Write the rows added last as a block."""
        if self._new_ids:
            self._write(len(self._new_ids))

    def locate(self, identities: Sequence[bytes]) -> Places:
        """Return the places of rows, int64 (N, 2), for :meth:`read`; KeyError if one is missing."""
        return np.array([self._place[each] for each in identities], dtype=np.int64).reshape(-1, 2)

    def read(self, places: Places) -> Tensor:
        """Copy the rows at ``places``: (N, ...)."""
        out = np.empty((len(places), self.spec.nbytes), dtype=np.uint8)
        for target, (block, row) in zip(out, places.tolist(), strict=True):
            target[:] = self._blocks[block][row]
        return torch.from_numpy(out).view(self.spec.dtype).reshape(len(places), *self.spec.shape)

    def _write(self, count: int) -> None:
        identities, self._new_ids = self._new_ids[:count], self._new_ids[count:]
        rows, self._new_rows = np.stack(self._new_rows[:count]), self._new_rows[count:]
        if self.folder is not None:
            names = np.frombuffer(b"".join(identities), dtype=np.uint8).reshape(count, 32)
            content = safetensors.numpy.save({"identities": names, "rows": rows})
            path = self.folder / f"{hashlib.sha256(content).hexdigest()}{SUFFIX}"
            try:
                write_atomic(path, content)
                rows = _map(path)[1]
            except OSError as error:
                log.warning("%s: cannot be written (%s); these features stay in memory", path, error)
        self._add_block(identities, rows)

    def _add_block(self, identities: Sequence[bytes], rows: Bytes) -> None:
        self._blocks.append(rows)
        for row, identity in enumerate(identities):
            self._place.setdefault(identity, (len(self._blocks) - 1, row))

    def _open(self, folder: Path, about: dict[str, Any]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
            write_atomic(folder / ABOUT, text.encode("utf-8", "surrogateescape"))
            os.utime(folder)
        except OSError as error:
            log.warning("%s: cannot be written (%s); features stay in memory", folder, error)
            self.folder = None
            return
        for path in sorted(folder.iterdir()):
            if path.name.startswith(TEMPORARY):
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > ABANDONED:
                        path.unlink()
            elif path.name != ABOUT:
                self._open_block(path)

    def _open_block(self, path: Path) -> None:
        try:
            with open_regular(path) as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest()
            if f"{whole}{SUFFIX}" != path.name:
                raise ValueError("damaged")
            identities, rows = _map(path)
            if rows.shape[1] != self.spec.nbytes:
                raise ValueError("its rows have another size")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("%s: %s; its features are computed again", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return
        self._add_block(identities, rows)


def _map(path: Path) -> tuple[list[bytes], Bytes]:
    """Read the identities of a block, and map its rows into memory."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 1 << 16:
            raise ValueError("not a block of features")
        header = json.loads(file.read(length))
        names, rows = header["identities"], header["rows"]
        start, stop = names["data_offsets"]
        file.seek(8 + length + start)
        packed = file.read(stop - start)
    identities = [packed[at : at + 32] for at in range(0, len(packed), 32)]
    mapped = np.memmap(path, np.uint8, "r", 8 + length + rows["data_offsets"][0], tuple(rows["shape"]))
    if len(identities) != len(mapped):
        raise ValueError("it has more rows than images, or fewer")
    return identities, mapped
