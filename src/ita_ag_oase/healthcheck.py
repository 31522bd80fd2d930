"""Whether the agent of this container is alive, for container engines without probes of their own.

`python -m ita_ag_oase.healthcheck` ends with 0 where /livez answers that it is, else with 1. It runs every few seconds
beside the agent, so it imports next to nothing; the container's environment is all that it reads.
"""

import os
import socket
import sys

_SECONDS = 4.0
_PORT = "9879"


def main() -> int:
    """Return 0 where the agent says that it is alive, or where its status page is off; else 1."""
    # Not through the settings, whose import takes most of a second.
    port = os.environ.get("STATUS_PORT") or _PORT  # noqa: TID251
    address = os.environ.get("STATUS_ADDRESS") or "127.0.0.1"  # noqa: TID251
    if port == "0":
        return 0
    try:
        return 0 if b" 200 " in _first_line(_reachable(address), int(port)) else 1
    except (OSError, ValueError) as err:
        sys.stderr.write(f"the agent's status page does not answer on port {port}: {err}\n")
        return 1


def _reachable(address: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - what is listened on


def _first_line(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), timeout=_SECONDS) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as answer:
            return answer.readline(1_024)


if __name__ == "__main__":
    sys.exit(main())
