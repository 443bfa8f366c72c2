"""Checks pymemcache against the server at HOST PORT; prints the number of operations.

Further arguments make it speak TLS: the authority that it believes, and the certificate and the key that it shows."""

import ssl
import sys
import time

from pymemcache.client.base import Client

EXPIRY_LIMIT_S = 5


def tls_context(authority=None, *own):
    if authority is None:
        return None
    context = ssl.create_default_context(cafile=authority)
    if own:
        context.load_cert_chain(*own)
    return context


def main():
    context = tls_context(*sys.argv[3:])
    client = Client((sys.argv[1], int(sys.argv[2])), default_noreply=False, timeout=20, tls_context=context)
    checks = []

    def check(name, got, expected):
        assert got == expected, f"{name}: {got!r} instead of {expected!r}"
        checks.append(name)

    check("set", client.set("a", b"one"), True)
    check("get", client.get("a"), b"one")
    check("get miss", client.get("nothing"), None)
    check("add", client.add("b", b"two"), True)
    check("add twice", client.add("b", b"three"), False)
    check("replace", client.replace("b", b"four"), True)
    check("replace miss", client.replace("nothing", b"five"), False)
    check("append", client.append("b", b"!"), True)
    check("prepend", client.prepend("b", b"<"), True)
    check("appended", client.get("b"), b"<four!")
    check("set_many", client.set_many({f"many:{n}": str(n).encode() for n in range(100)}), [])
    keys = [f"many:{n}" for n in range(100)] + ["nothing"]
    check("get_many", client.get_many(keys), {f"many:{n}": str(n).encode() for n in range(100)})
    value, cas = client.gets("a")
    check("gets", value, b"one")
    check("cas", client.cas("a", b"six", cas), True)
    check("cas old", client.cas("a", b"seven", cas), False)
    check("cas miss", client.cas("nothing", b"seven", cas), None)
    check("set number", client.set("n", b"10"), True)
    check("incr", client.incr("n", 5), 15)
    check("decr", client.decr("n", 20), 0)
    check("incr miss", client.incr("nothing", 1), None)
    check("touch", client.touch("a", 1000), True)
    check("touch miss", client.touch("nothing", 1000), False)
    check("touched", client.get("a"), b"six")
    check("delete", client.delete("a"), True)
    check("delete miss", client.delete("a"), False)
    large = bytes(range(256)) * 4000
    check("set 1 MB", client.set("large", large), True)
    check("get 1 MB", client.get("large"), large)
    check("noreply", client.set("quiet", b"q", noreply=True), True)
    check("after noreply", client.get("quiet"), b"q")
    check("expiring", client.set("short", b"lived", expire=1), True)
    deadline = time.monotonic() + EXPIRY_LIMIT_S
    while client.get("short") is not None:
        assert time.monotonic() < deadline, "an item of one second is still there"
        time.sleep(0.02)
    checks.append("expired")
    check("version", client.version().count(b"."), 2)
    check("stats", b"curr_items" in client.stats(), True)
    check("flush_all", client.flush_all(), True)
    check("flushed", client.get("large"), None)
    client.quit()
    print(f"{len(checks)} operations")


main()
