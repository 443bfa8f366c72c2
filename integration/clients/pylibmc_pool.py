"""Sets or gets numbered keys with libmemcached over a pool: MODE set|get BEHAVIOR FROM TO SERVER:WEIGHT...

Prints how many keys were set, or found with their own value.
"""

import sys

import pylibmc


def key(number):
    return f"key:{{{number // 3}}}:{number}" if number % 3 == 0 else f"key:{number}"


def main():
    mode, behavior, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    servers = sys.argv[5:]
    behaviors = {behavior: True, "receive_timeout": 20_000_000}
    client = pylibmc.Client(servers, binary=False, behaviors=behaviors)
    keys = [key(number) for number in range(first, last)]
    found = 0
    for start in range(0, len(keys), 1000):
        part = keys[start:start + 1000]
        if mode == "set":
            failed = client.set_multi({key: key.encode() for key in part})
            found += len(part) - len(failed)
        else:
            values = client.get_multi(part)
            found += sum(values.get(key) == key.encode() for key in part)
    print(found)


main()
