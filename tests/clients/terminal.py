"""A terminal that tests type at."""

import os
import pty
import select
import termios
import time


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, arguments, environment):
        self.shown = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execve(arguments[0], arguments, environment)

    def _read(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._fd], [], [], left)[0]:
            raise AssertionError("nothing further is shown after: " + self.shown)
        try:
            chunk = os.read(self._fd, 4096)
        except OSError:
            return False
        self.shown += chunk.decode()
        return bool(chunk)

    def wait_for(self, text):
        deadline = time.monotonic() + 30
        while text not in self.shown:
            if not self._read(deadline):
                raise AssertionError("ended without asking: " + self.shown)

    def type(self, text):
        os.write(self._fd, (text + "\n").encode())

    def type_unseen(self, text):
        """Once what is typed is not shown any more."""
        deadline = time.monotonic() + 30
        while termios.tcgetattr(self._fd)[3] & termios.ECHO:
            if time.monotonic() > deadline:
                raise AssertionError("all that is typed is shown, after: " + self.shown)
            time.sleep(0.01)
        self.type(text)

    def end(self):
        deadline = time.monotonic() + 30
        while self._read(deadline):
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
