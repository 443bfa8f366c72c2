"""Checks bmemcached (python-binary-memcached) against the server at HOST PORT; prints the number of operations."""

import sys
import time

import bmemcached

EXPIRY_LIMIT_S = 5


def main():
    client = bmemcached.Client((f"{sys.argv[1]}:{sys.argv[2]}",), socket_timeout=20)
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
    check("replace miss", client.replace("nothing", b"five"), False)
    check("replaced", client.get("b"), b"four")
    many = {f"many:{n}": f"value {n}" for n in range(100)}
    check("set_multi", client.set_multi(many), [])
    check("get_multi", client.get_multi([*many, "nothing"]), many)
    value, cas = client.gets("a")
    check("gets", value, b"one")
    check("cas", client.cas("a", b"six", cas), True)
    check("cas old", client.cas("a", b"seven", cas), False)
    check("cas value", client.get("a"), b"six")
    check("delete with an old cas", client.delete("a", cas=cas), False)
    check("incr creates", client.incr("n", 5, default=10, time=100), 10)
    check("incr", client.incr("n", 5), 15)
    check("decr", client.decr("n", 20), 0)
    check("delete", client.delete("a"), True)
    check("deleted", client.get("a"), None)
    check("delete_multi", client.delete_multi(["many:1", "many:2"]), True)
    check("get_multi after", "many:1" in client.get_multi(["many:1", "many:3"]), False)
    large = bytes(range(256)) * 4000
    check("set 1 MB", client.set("large", large, compress_level=0), True)
    check("get 1 MB", client.get("large"), large)
    check("expiring", client.set("short", b"lived", time=1), True)
    deadline = time.monotonic() + EXPIRY_LIMIT_S
    while client.get("short") is not None:
        assert time.monotonic() < deadline, "an item of one second is still there"
        time.sleep(0.02)
    checks.append("expired")
    check("stats", all(b"curr_items" in map(as_bytes, server) for server in client.stats().values()), True)
    check("flush_all", client.flush_all(), True)
    check("flushed", client.get("large"), None)
    client.disconnect_all()
    print(f"{len(checks)} operations")


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


main()
