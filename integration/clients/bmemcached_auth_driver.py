"""Checks SASL authentication by bmemcached at HOST PORT, where alice:one and bob:two are users; prints the number of
operations. The third argument is the length of a password that makes a token too long."""

import sys

import bmemcached
from bmemcached.exceptions import MemcachedException

# What memcached answers; the client's own InvalidCredentials is for another server's code.
AUTH_ERROR = 0x20


def main():
    checks = []
    server = f"{sys.argv[1]}:{sys.argv[2]}"

    def check(name, got, expected):
        assert got == expected, f"{name}: {got!r} instead of {expected!r}"
        checks.append(name)

    def connect(user=None, password=None):
        return bmemcached.Client((server,), user, password, socket_timeout=20)

    def refused(name, client, operation=lambda client: client.set("kept", b"broken")):
        """Such a client does not come in, and its request is not executed."""
        try:
            result = operation(client)
        except MemcachedException as error:
            check(name, error.code, AUTH_ERROR)
        else:
            raise AssertionError(f"{name}: not refused but answered {result!r}")
        finally:
            client.disconnect_all()

    inside = connect("alice", "one")
    check("set", inside.set("kept", b"5"), True)
    check("get", inside.get("kept"), b"5")
    check("incr", inside.incr("n", 1, default=7), 7)
    check("get_multi", inside.get_multi(["kept", "nothing"]), {"kept": b"5"})
    check("the other sees it", connect("bob", "two").get("kept"), b"5")
    before = counters(inside)

    refused("wrong user", connect("mallory", "one"))
    refused("wrong password", connect("alice", "two"))
    refused("another user's password", connect("bob", "one"))
    refused("part of the password", connect("alice", "on"))
    refused("oversized token", connect("alice", "one".ljust(int(sys.argv[3]), "x")))
    refused("no password", connect("alice", ""))
    refused("no authentication", connect())
    refused("get", connect(), lambda client: client.get("kept"))
    refused("add", connect(), lambda client: client.add("new", b"broken"))
    refused("incr", connect(), lambda client: client.incr("n", 1))
    refused("delete", connect(), lambda client: client.delete("kept"))
    refused("flush_all", connect(), lambda client: client.flush_all())

    check("it is kept", inside.get("kept"), b"5")
    check("and the number", inside.get("n"), "7")
    after = counters(inside)
    for counter in ("cmd_set", "cmd_flush", "incr_hits", "delete_hits", "curr_items", "total_items"):
        check(counter, after[counter], before[counter])
    # Only our own two.
    check("cmd_get", after["cmd_get"] - before["cmd_get"], 2)
    print(f"{len(checks)} operations")


def counters(client):
    (stats,) = client.stats().values()
    texts = {as_text(name): as_text(value) for name, value in stats.items()}
    return {name: int(value) for name, value in texts.items() if value.isdigit()}


def as_text(word):
    return word.decode() if isinstance(word, bytes) else word


main()
