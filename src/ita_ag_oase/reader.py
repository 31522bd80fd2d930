"""Has the configuration read in a process of its own, so that nothing that only reading needs stays in memory."""

# What both processes need is imported before the fork, which spares it one of them; all else comes behind.
import asyncio  # noqa: F401 - pydantic-settings and the agent
import contextlib
import email.message  # noqa: F401 - pydantic and httpx
import os
import pickle
import signal
import sys
import traceback
from typing import NamedTuple, NoReturn, Self

from ita_ag_oase.errors import ConfigError, ReaderEnded, Reason
from ita_ag_oase.settings import LANGUAGES, Settings
from ita_ag_oase.text import Text


class Configuration(NamedTuple):
    """What was read: the language to tell people in, and the settings, or what is wrong with them."""

    language: str
    outcome: Settings | list[tuple[str, Text]] | Text

    def settings(self) -> Settings:
        """Return the settings. Raises ConfigError with every mistake at once, or ReaderEnded."""
        if isinstance(self.outcome, list):
            raise ConfigError(self.outcome)
        if isinstance(self.outcome, Text):
            raise ReaderEnded(self.outcome, reason=Reason.CONFIGURATION)
        return self.outcome


class Reader:
    """A process that reads the configuration while its parent does something else, and ends with the context.

    It is a fork, so that secrets are in nothing but a pipe. Where there can be none, the configuration is read here.
    """

    def __init__(self) -> None:
        self._child: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if _can_fork():
            # There may be no room for another process.
            with contextlib.suppress(OSError):
                self._child = _start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            pid, reading = self._child
            os.close(reading)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _wait(pid)

    def configuration(self) -> Configuration:
        """Wait for what was read and return it."""
        if self._child is None:
            return _read()
        pid, reading = self._child
        with open(reading, "rb", closefd=False) as pipe:
            told = pipe.read()
        self._child = None
        os.close(reading)
        return _understood(told, _wait(pid))


def _can_fork() -> bool:
    # What another thread has locked would stay locked in the child for ever.
    return hasattr(os, "fork") and len(sys._current_frames()) == 1  # noqa: SLF001 - documented; it knows all threads


def _start() -> tuple[int, int]:
    """Return a child's process id, and from where to read what it tells."""
    reading, writing = os.pipe()
    parent = os.getpid()
    try:
        return os.fork() or _answer(reading, writing), reading
    except OSError:
        os.close(reading)
        raise
    finally:
        # Whatever happens there, the child does not go on as a second agent.
        if os.getpid() != parent:
            os._exit(1)
        os.close(writing)


def _answer(reading: int, writing: int) -> NoReturn:
    """Be the child: tell what was read, and end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.close(reading)
    try:
        with open(writing, "wb") as pipe:
            pickle.dump(_read(), pipe)
    except BrokenPipeError:
        # The agent was killed meanwhile: nobody wants to know any more.
        os._exit(1)
    except Exception:  # noqa: BLE001 - a mistake of ours is seen as it would be without a child
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _read() -> Configuration:
    from ita_ag_oase import environment

    language = environment.find_language()
    try:
        return Configuration(language, environment.load())
    except ConfigError as err:
        return Configuration(language, err.problems)


def _wait(pid: int) -> int | None:
    """Return a child's exit code, negative for a signal's number; None where nobody knows it."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        # Who started the agent ignores SIGCHLD, so that the system forgets the agent's children, too.
        return None


def _understood(told: bytes, code: int | None) -> Configuration:
    try:
        configuration: Configuration = pickle.loads(told)  # noqa: S301 - our own child's words
    except (EOFError, pickle.UnpicklingError):
        ended = Text(
            "the process that reads the configuration ended before it was done (exit code {code}): where that is -9, "
            "the system has ended it, so raise the memory limit",
            code=code,
        )
        return Configuration(LANGUAGES[0], ended)
    return configuration
