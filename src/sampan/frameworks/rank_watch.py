"""Which rank is lost, and an end for those that wait for it: a thread in every rank that shows signs of life to the others.

A rank that ends by an error says so first, and the others end at once. One that was killed or stopped shows no sign of life;
after `timeout_s` one of the others says which it is and where it waits itself, and all end. Loads no framework.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Protocol

_LOOK_EVERY_S = 1.0
_FAILED, _ENDED = "sampan/failed", "sampan/ended/"
LOST = 1  # status of a rank that ends because another is lost


class Board(Protocol):
    """Where ranks leave notes for each other."""

    def put(self, key: str, text: str) -> None: ...

    def get(self, key: str) -> str | None: ...

    def claim(self, key: str, text: str) -> str:
        """Set a key that is not set, and return what it holds then."""
        ...


class RankWatch:
    """Shows this rank's signs of life, and looks for those of the others.

    Args:
        board: A connection that no other thread uses.
        timeout_s: After so long without a sign a rank is lost.
    """

    def __init__(self, board: Board, rank: int, ranks: int, timeout_s: float):
        self.board, self.rank, self.ranks, self.timeout_s = board, rank, ranks, timeout_s
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._seen: dict[int, tuple[str | None, float]] = {}
        self._beats = 0
        self._thread = threading.Thread(target=self._watch, name="rank watch", daemon=True)
        self._thread.start()

    def claim_failure(self, words: str) -> bool:
        """Say that this rank ends by an error; return whether it is the first, who tells the user."""
        own = f"{self.rank} {words}"
        try:
            with self._lock:
                return self.board.claim(_FAILED, own) == own
        except RuntimeError:  # the board is gone with the rank that had it: nobody else can be told
            return True

    def close(self) -> None:
        """Stop looking: this rank has done its work."""
        self._closed.set()
        self._thread.join()
        with suppress(RuntimeError):  # the others are gone already
            self.board.put(f"{_ENDED}{self.rank}", "1")

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_EVERY_S):
            try:
                with self._lock:
                    self._beats += 1
                    self.board.put(f"sampan/beat/{self.rank}", str(self._beats))
                    failed, lost = self.board.get(_FAILED), self._lost()
            except RuntimeError as error:
                if not self._closed.is_set():
                    self._end(
                        f"the ranks' store is gone ({str(error).splitlines()[0][:160]}): its rank or launcher ended"
                    )
                return
            if failed is not None:
                time.sleep(_LOOK_EVERY_S)  # the rank's own error comes first, where it was this one
                if not self._closed.is_set() and int(failed.split(" ", 1)[0]) != self.rank:
                    os._exit(LOST)  # the first has told it
            elif lost is not None:
                words = f"rank {lost} of {self.ranks} has shown no sign of life for {self.timeout_s:g} s"
                if self.claim_failure(words):
                    self._end(words)
                os._exit(LOST)

    def _lost(self) -> int | None:
        """Return a rank whose signs have stopped."""
        now = time.monotonic()
        for other in range(self.ranks):
            if other == self.rank:
                continue
            beat = self.board.get(f"sampan/beat/{other}")
            before, since = self._seen.get(other, ("", now))
            if beat != before:
                self._seen[other] = (beat, now)
            elif now - since > self.timeout_s and self.board.get(f"{_ENDED}{other}") is None:
                return other
        return None

    def _end(self, words: str) -> None:
        where = f"rank {self.rank} ({socket.gethostname()}, process {os.getpid()})"
        sys.stderr.write(f"error: the run ends: {words}\n  because {where} waits here:\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
        sys.stderr.write("\nhint: start all ranks again with --resume\n")
        sys.stderr.flush()
        os._exit(LOST)
