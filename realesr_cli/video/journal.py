"""The job folder: what has been done of a video, in a form that survives `kill -9` at any point."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from realesr_cli.atomic import atomic_write_bytes, lock_file, write_errors
from realesr_cli.errors import JobChangedError, VideoError
from realesr_cli.text import format_value
from realesr_cli.weights.cache import sha256_of

_PLAN, _JOURNAL, _LOCK = "plan.json", "journal.jsonl", "lock"
PART = ".part"


@dataclass
class ChunkCounts:
    """What became of the frames of a chunk."""

    frames: int = 0
    computed: int = 0
    repeated: int = 0
    concealed: int = 0
    """Frames that could not be decoded and show their neighbor instead."""
    corrupt: int = 0
    """Frames that were decoded with damage."""
    tile_lookups: int = 0
    tile_hits: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class DoneChunk:
    """A chunk that has been encoded into a file."""

    number: int
    delay: int
    counts: ChunkCounts = field(default_factory=ChunkCounts)


class VideoJob:
    """Finished chunks of one video; held by one process at a time.

    A chunk is written to a `.part` file, synced, renamed, and only then entered in the journal
    with its hash, which is synced too. So whatever the journal lists is whole, unless somebody
    changed it, and then the hash shows it.
    """

    def __init__(
        self, folder: Path, fingerprint: Mapping[str, Any], *, resume: bool = True
    ) -> None:
        """Open or create a job of what `fingerprint` describes.

        Raises JobChangedError where the folder holds a job of something else, and VideoError
        where another process holds it or it is no job folder.
        """
        self.folder = folder
        self.done: dict[int, DoneChunk] = {}
        self.result: dict[str, Any] | None = None
        """Hash and report of the finished file, once it is about to get its name."""
        self.recomputed = 0
        """Chunks that had been begun before and were begun again."""
        self._begun: set[int] = set()
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            known = (folder / _PLAN).exists() or (folder / _LOCK).exists()
            if not known and any(folder.iterdir()):
                raise VideoError(f"{folder}: is not empty, and no folder of a video job")
            self._lock = self._take_lock()
        try:
            plain = json.loads(json.dumps(fingerprint))
            recorded = self._read_plan()
            if recorded is None or not resume:
                self._clear()
                atomic_write_bytes(folder / _PLAN, json.dumps(plain, indent=1).encode())
                recorded = plain
            _compare(folder, recorded, plain)
            self.resumed = self._read_journal()
            for part in folder.glob("*" + PART):
                part.unlink()
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> BinaryIO:
        file = (self.folder / _LOCK).open("ab")
        try:
            lock_file(file)
        except OSError as error:
            file.close()
            raise VideoError(f"{self.folder}: another process works on this video") from error
        return file

    def _read_plan(self) -> dict[str, Any] | None:
        """Return the recorded fingerprint; None where there is none, or half of one."""
        try:
            found = json.loads((self.folder / _PLAN).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _read_journal(self) -> bool:
        """Read what is done, and drop what is not as recorded; return whether anything was."""
        entries: dict[int, dict[str, Any]] = {}
        lines = _read_lines(self.folder)
        for entry in lines:
            if "result" in entry:
                self.result = entry["result"]
            elif "sha256" in entry:
                entries[entry["chunk"]] = entry
            else:
                self._begun.add(entry["chunk"])
        for number, entry in entries.items():
            path = self.segment(number)
            with contextlib.suppress(OSError, KeyError, TypeError):
                if sha256_of(path) == entry["sha256"]:
                    counts = ChunkCounts(**entry["counts"])
                    self.done[number] = DoneChunk(number, entry["delay"], counts)
        return bool(lines)

    def segment(self, number: int) -> Path:
        """Return the file of a chunk."""
        return self.folder / f"{number:06d}.chunk"

    def part(self, number: int) -> Path:
        """Return the file that a chunk is written to before it is whole."""
        return self.folder / f"{number:06d}-{os.getpid()}{PART}"

    def begin(self, number: int) -> None:
        """Note that work on a chunk begins, for the count of work done twice."""
        if number in self._begun:
            self.recomputed += 1
        self._begun.add(number)
        self._append({"chunk": number}, sync=False)

    def commit(self, chunk: DoneChunk, part: Path) -> None:
        """Take over the file of a finished chunk."""
        digest = sha256_of(part)
        with write_errors(part):
            os.replace(part, self.segment(chunk.number))
            self._sync_folder()
        self._append(
            {
                "chunk": chunk.number,
                "sha256": digest,
                "delay": chunk.delay,
                "counts": dataclasses.asdict(chunk.counts),
            }
        )
        self.done[chunk.number] = chunk

    def commit_result(self, digest: str, report: Mapping[str, Any]) -> None:
        """Note the hash of the finished file just before it gets its name."""
        self._append({"result": {"sha256": digest, "report": report}})

    def _append(self, entry: Mapping[str, Any], *, sync: bool = True) -> None:
        path = self.folder / _JOURNAL
        with write_errors(path), path.open("ab") as file:
            # A line break first ends a line that was half written when a process was killed.
            file.write(b"\n" + json.dumps(entry).encode() + b"\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())

    def _sync_folder(self) -> None:
        if os.name != "nt":
            number = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)

    def _clear(self) -> None:
        """Remove the files of a job, and no others."""
        for pattern in (_PLAN, _JOURNAL, "*.chunk", "*" + PART):
            for path in self.folder.glob(pattern):
                path.unlink()

    def remove(self) -> None:
        """Remove the job, and its folder unless somebody put something else there."""
        with contextlib.suppress(OSError):
            self._clear()
            (self.folder / _LOCK).unlink()
            self.folder.rmdir()
        self.close()

    def close(self) -> None:
        """Let other processes have the job."""
        self._lock.close()


def _read_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a journal, without a line that was half written when a process died."""
    entries = []
    with contextlib.suppress(OSError):
        for line in (folder / _JOURNAL).read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and ("chunk" in entry or "result" in entry):
                    entries.append(entry)
    return entries


def is_result(folder: Path, target: Path) -> bool:
    """Return whether a file is what a job wrote before it was killed at its very end."""
    digests = [entry["result"]["sha256"] for entry in _read_lines(folder) if "result" in entry]
    return bool(digests) and sha256_of(target) in digests


def _compare(folder: Path, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise JobChangedError with the first difference."""
    for key in (*now, *recorded):
        old, new = recorded.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            inner = next(k for k in (*new, *old) if old.get(k) != new.get(k))
            key, old, new = f"{key}.{inner}", old.get(inner), new.get(inner)
        raise JobChangedError(
            f"{folder}: holds a job with another {key}: {format_value(old)} then, "
            f"{format_value(new)} now",
            advice="video-changed",
        )
