"""Checks authentication by pymemcache at HOST PORT, where alice:one and bob:two are users; prints the number of operations.

A third argument is the length of a token that is too long. A real memcached is not asked for that: its limit is as large as
its buffer, so it closes with bytes unread, and the reset may overtake the answer."""

import sys

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError

WRONG = b"authentication failure"
FORMAT = b"bad authentication token format"
UNAUTHENTICATED = b"unauthenticated"
TOO_LONG = b"auth token too long"


def main():
    checks = []
    address = (sys.argv[1], int(sys.argv[2]))

    def check(name, got, expected):
        assert got == expected, f"{name}: {got!r} instead of {expected!r}"
        checks.append(name)

    def connect():
        return Client(address, default_noreply=False, timeout=20)

    def refused(name, reason, operation):
        """The operation on a new connection fails for that reason."""
        client = connect()
        try:
            result = operation(client)
        except MemcacheClientError as error:
            check(name, error.args[0], reason)
        else:
            raise AssertionError(f"{name}: not refused but answered {result!r}")
        finally:
            client.close()

    inside = connect()
    check("the right password", inside.set("auth", b"alice one"), True)
    check("set", inside.set("kept", b"5"), True)
    check("get", inside.get("kept"), b"5")
    check("the token is not stored", inside.get("auth"), None)
    other = connect()
    check("the right password of another", other.set("any", b"bob two"), True)
    check("the other sees it", other.get("kept"), b"5")
    before = inside.stats()

    refused("wrong user", WRONG, lambda client: client.set("auth", b"mallory one"))
    refused("wrong password", WRONG, lambda client: client.set("auth", b"alice two"))
    refused("another user's password", WRONG, lambda client: client.set("auth", b"bob one"))
    refused("part of the password", WRONG, lambda client: client.set("auth", b"alice on"))
    refused("no password", FORMAT, lambda client: client.set("auth", b"alice"))
    refused("nothing", FORMAT, lambda client: client.set("auth", b""))
    if len(sys.argv) > 3:
        oversized = b"alice one".ljust(int(sys.argv[3]), b"x")
        refused("oversized token", TOO_LONG, lambda client: client.set("auth", oversized))

    refused("get", UNAUTHENTICATED, lambda client: client.get("kept"))
    refused("gets", UNAUTHENTICATED, lambda client: client.gets("kept"))
    refused("get_many", UNAUTHENTICATED, lambda client: client.get_many(["kept", "auth"]))
    refused("set", FORMAT, lambda client: client.set("kept", b"broken"))
    refused("incr", UNAUTHENTICATED, lambda client: client.incr("kept", 1))
    refused("touch", UNAUTHENTICATED, lambda client: client.touch("kept", 1))
    refused("delete", UNAUTHENTICATED, lambda client: client.delete("kept"))
    refused("flush_all", UNAUTHENTICATED, lambda client: client.flush_all())
    refused("stats", UNAUTHENTICATED, lambda client: client.stats())
    refused("version", UNAUTHENTICATED, lambda client: client.version())

    check("it is kept", inside.get("kept"), b"5")
    after = inside.stats()
    for counter in (b"cmd_set", b"cmd_flush", b"cmd_touch", b"incr_hits", b"delete_hits", b"curr_items", b"total_items"):
        check(counter, after[counter], before[counter])
    # Only our own get.
    check("cmd_get", after[b"cmd_get"] - before[b"cmd_get"], 1)
    check("auth_errors", after[b"auth_errors"] - before[b"auth_errors"], 4)
    print(f"{len(checks)} operations")


main()
