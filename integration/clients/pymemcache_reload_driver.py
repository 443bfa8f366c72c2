"""Exchanges the certificates of the server at HOST PORT under load, with pymemcache; prints the number of operations.

FOLDER has chain.pem and key.pem, which the server reads, ca.pem, and folders of further pairs of the same authority, which
take their place one after the other: by SIGHUP to PID and by refresh_certs in turn."""

import os
import shutil
import signal
import ssl
import sys
import threading
import time
from pathlib import Path

from pymemcache.client.base import Client

CONNECTIONS = 4
# Answers that every connection must get between two exchanges.
ANSWERS_BETWEEN = 50
LIMIT_S = 60


class Load(threading.Thread):
    """Requests over one connection, which must last."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client = client
        self.answers = 0
        self.failure = None
        self.ended = threading.Event()

    def run(self):
        key = f"load:{self.name}"
        try:
            while not self.ended.is_set():
                value = str(self.answers).encode() * 100
                assert self.client.set(key, value)
                assert self.client.get(key) == value
                self.answers += 2
        except Exception as failure:
            self.failure = failure


def certificate(client):
    return client.sock.getpeercert(binary_form=True)


def main():
    address, folder, pid = (sys.argv[1], int(sys.argv[2])), Path(sys.argv[3]), int(sys.argv[4])
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    checks = []

    def check(name, got, expected):
        assert got == expected, f"{name}: {got!r} instead of {expected!r}"
        checks.append(name)

    def connect():
        client = Client(address, default_noreply=False, timeout=20, tls_context=context)
        client.version()
        return client

    def wait(what, condition):
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"{what} takes too long"
            time.sleep(0.01)

    def served():
        """Every connection is answered from now on."""
        goals = [(load, load.answers + ANSWERS_BETWEEN) for load in loads]
        wait("load", lambda: all(load.failure or load.answers >= goal for load, goal in goals))
        check("failures", [load.failure for load in loads if load.failure], [])

    def offered():
        """The certificate that a new connection sees, which is served too."""
        client = connect()
        seen = certificate(client)
        client.quit()
        return seen

    loads = [Load(connect()) for _ in range(CONNECTIONS)]
    sockets = [load.client.sock for load in loads]
    first = certificate(loads[0].client)
    for load in loads:
        load.start()
    operator = connect()
    served()
    for number, pair in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        before = offered()
        new = ssl.PEM_cert_to_DER_cert((pair / "chain.pem").read_text())
        assert before != new
        for name in ("chain.pem", "key.pem"):
            shutil.copy(pair / name, folder / name)
        # Nobody told the server yet.
        check("the old certificate", offered(), before)
        if number % 2 == 0:
            os.kill(pid, signal.SIGHUP)
            wait("SIGHUP", lambda: offered() == new)
        else:
            check("refresh_certs", operator.raw_command("refresh_certs"), b"OK")
        check("the new certificate", offered(), new)
        served()
    for load in loads:
        load.ended.set()
        load.join()
    check("failures", [load.failure for load in loads if load.failure], [])
    check("the same connections", [load.client.sock for load in loads] == sockets, True)
    check("with the first certificate", {certificate(load.client) for load in loads}, {first})
    print(f"{sum(load.answers for load in loads)} answers under load")
    print(f"{len(checks)} operations")


main()
