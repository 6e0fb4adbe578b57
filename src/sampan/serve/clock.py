"""Time for what a server keeps: it goes on evenly, whatever somebody does to the clock of the machine.

The age of a picture, and how long an address holds, are counted in seconds of this time. While the process runs it
advances by a clock that nobody can set; between two runs by the machine's clock, if that says something that can be
true. A machine whose clock jumps by ten years therefore loses no picture, and opens no address for ten years.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("sampan.serve")
MAX_GAP_S = 31 * 86400.0
"""A longer time between two runs is taken for a clock that was set, and not for a machine that was switched off."""
_NOTICED_S = 60.0


def _elapsed() -> float:
    """Return seconds since some moment, those in which the machine slept among them where the system counts them."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)  # Linux: its monotonic clock stands still in sleep
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class SteadyClock:
    """Unix time that does not jump.

    Args:
        wall: The machine's clock, in seconds since 1970.
        elapsed: A clock that is never set, in seconds.
    """

    def __init__(self, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = _elapsed):
        self._wall, self._elapsed = wall, elapsed
        self._time = self._wall_then = wall()
        self._then = elapsed()
        self._ahead = 0.0  # of the steady time, what the machine's clock was last seen to be

    def resume(self, steady: float, wall: float) -> None:
        """Go on where an earlier run was: its time, and what the machine's clock said then."""
        gap = self._wall() - wall
        if not 0 <= gap <= MAX_GAP_S:
            log.warning(
                "the machine's clock says that this store was last used %s: that is not believed, and no picture is "
                "removed for it",
                f"{gap / 86400:.1f} days ago" if gap > 0 else f"{-gap / 86400:.1f} days from now",
            )
            gap = 0.0
        self._time, self._then = steady + gap, self._elapsed()
        self._wall_then = self._wall()
        self._ahead = 0.0

    def now(self) -> float:
        """Return the time; it never goes back."""
        return self._time + self._elapsed() - self._then

    def notice(self) -> tuple[float, float]:
        """Say in the log when the machine's clock jumped; return the time, and what the machine's clock says."""
        wall, elapsed = self._wall(), self._elapsed() - self._then
        ahead = wall - self._wall_then - elapsed
        if abs(jump := ahead - self._ahead) > _NOTICED_S:
            log.warning(
                "the machine's clock was set %s by %.0f s: pictures are not removed for it, and addresses hold as "
                "long as before",
                "forward" if jump > 0 else "back",
                abs(jump),
            )
            self._ahead = ahead
        return self._time + elapsed, wall
