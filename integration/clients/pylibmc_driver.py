"""Checks pylibmc (libmemcached) against the server at HOST PORT, in PROTOCOL `text` or `binary`; prints the number of
operations."""

import sys
import time

import pylibmc

EXPIRY_LIMIT_S = 5


def main():
    behaviors = {"cas": True, "tcp_nodelay": True, "receive_timeout": 20_000_000}
    binary = {"text": False, "binary": True}[sys.argv[3]]
    client = pylibmc.Client([f"{sys.argv[1]}:{sys.argv[2]}"], binary=binary, behaviors=behaviors)
    checks = []

    def check(name, got, expected):
        assert got == expected, f"{name}: {got!r} instead of {expected!r}"
        checks.append(name)

    check("set", client.set("a", b"one"), True)
    check("get", client.get("a"), b"one")
    check("get miss", client.get("nothing"), None)
    check("set flags", client.set("typed", {"x": [1, 2]}), True)
    check("get flags", client.get("typed"), {"x": [1, 2]})
    check("add", client.add("b", b"two"), True)
    check("add twice", client.add("b", b"three"), False)
    check("replace", client.replace("b", b"four"), True)
    check("replace miss", stored(client.replace, "nothing", b"five"), False)
    check("append", client.append("b", b"!"), True)
    check("prepend", client.prepend("b", b"<"), True)
    check("appended", client.get("b"), b"<four!")
    many = {f"many:{n}": n for n in range(100)}
    check("set_multi", client.set_multi(many), [])
    check("get_multi", client.get_multi([*many, "nothing"]), many)
    value, cas = client.gets("a")
    check("gets", value, b"one")
    check("cas", client.cas("a", b"six", cas), True)
    check("cas old", client.cas("a", b"seven", cas), False)
    check("set number", client.set("n", 10), True)
    check("incr", client.incr("n", 5), 15)
    check("decr", client.decr("n", 20), 0)
    check("touch", client.touch("a", 1000), True)
    check("delete", client.delete("a"), True)
    check("delete miss", client.delete("a"), False)
    check("delete_multi", client.delete_multi(["many:1", "many:2"]), True)
    large = bytes(range(256)) * 4000
    check("set 1 MB", client.set("large", large), True)
    check("get 1 MB", client.get("large"), large)
    check("expiring", client.set("short", b"lived", time=1), True)
    deadline = time.monotonic() + EXPIRY_LIMIT_S
    while client.get("short") is not None:
        assert time.monotonic() < deadline, "an item of one second is still there"
        time.sleep(0.02)
    checks.append("expired")
    check("stats", len(client.get_stats()), 1)
    check("flush_all", client.flush_all(), True)
    check("flushed", client.get("large"), None)
    print(f"{len(checks)} operations")


def stored(store, *arguments):
    """What text answers with NOT_STORED, binary answers with a status that pylibmc raises as an error."""
    try:
        return store(*arguments)
    except pylibmc.NotFound:
        return False


main()
