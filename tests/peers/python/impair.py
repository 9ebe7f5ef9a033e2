#!/usr/bin/env python3
"""A bad line: two network namespaces, and between them a path that delays and loses packets.

The kernels that tests run on have no netem, so the path is here: each namespace has a TUN device,
and this program carries IPv4 packets from one to the other, `--delay-ms` later, unless the seed says
that a packet is lost. The n-th packet of a direction meets the same fate in every run with the same
seed, whatever protocol it belongs to.

It makes its namespaces by itself (as root, or in a user namespace where the system allows it) and
prints one line of JSON once the path is there: what to give to `nsenter` to run a program at either
end, and the addresses. It goes on until its standard input ends, then prints what it counted.
Whoever runs programs at the ends has to end them; the namespaces go with the last of them.

Exit codes: 0, 77 where the system does not allow it (the reason is on standard error).

Standard library only; Linux only."""

import argparse
import collections
import fcntl
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

# RFC 2544: addresses for benchmarks of network devices.
ADDRESSES = {"near": "198.18.0.1", "far": "198.18.0.2"}
MTU = 1500
# Packets that the kernel may hold for this program.
DEVICE_QUEUE = 10_000
CANNOT = 77


def main():
    arguments = parse()
    if os.environ.get("IMPAIR_INSIDE") != "1":
        enter()
    try:
        near, far = tun("near"), tun("far")
    except OSError as error:
        give_up(f"no TUN device: {error}")
    # Its only business is to keep the other namespace: it ends when this program does.
    keeper = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    await_namespace(keeper.pid)
    ip("link", "set", "far", "netns", str(keeper.pid))
    raise_ends("near", ())
    raise_ends("far", ("nsenter", f"--net=/proc/{keeper.pid}/ns/net"))
    user = os.environ.get("IMPAIR_USER") == "1"
    ends = {"near": os.getpid(), "far": keeper.pid}
    print(json.dumps({
        "enter": {name: nsenter(pid, user) for name, pid in ends.items()},
        "addresses": ADDRESSES,
    }), flush=True)

    there = Direction(far, arguments, "there")
    back = Direction(near, arguments, "back")
    carry({near: there, far: back})
    counts = {"there": there.counts, "back": back.counts}
    for name, pid in ends.items():
        counts["there" if name == "near" else "back"]["overrun"] = overrun(pid, name)
    print(json.dumps(counts), flush=True)
    keeper.stdin.close()
    keeper.wait()


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loss", type=float, default=0.03, help="share of packets, each direction")
    parser.add_argument("--delay-ms", type=float, default=50, help="one way")
    parser.add_argument("--kbit", type=float, default=0, help="per second, each direction; 0 is no limit")
    parser.add_argument("--queue", type=int, default=10_000, help="packets under way, each direction")
    return parser.parse_args()


# --- namespaces and devices -----------------------------------------------------


def enter():
    """Starts this program again, in a network namespace of its own."""
    environment = {**os.environ, "IMPAIR_INSIDE": "1"}
    command = ["unshare", "--net"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
        environment["IMPAIR_USER"] = "1"
    tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    if tried.returncode:
        give_up(f"no network namespace: {tried.stderr.strip()}")
    os.execvpe(command[0], [*command, sys.executable, os.path.abspath(__file__), *sys.argv[1:]], environment)


def give_up(why):
    print(why, file=sys.stderr)
    sys.exit(CANNOT)


def tun(name):
    """A TUN device of this namespace; it may move to another one and stays with its descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def await_namespace(pid):
    """Waits until the child has left this namespace."""
    ours = os.readlink("/proc/self/ns/net")
    deadline = time.monotonic() + 10
    while os.readlink(f"/proc/{pid}/ns/net") == ours:
        if time.monotonic() > deadline:
            give_up("no second network namespace")
        time.sleep(0.005)


def ip(*arguments, where=()):
    subprocess.run([*where, "ip", *arguments], check=True)


def raise_ends(name, where):
    other = ADDRESSES["far" if name == "near" else "near"]
    ip("link", "set", "lo", "up", where=where)
    ip("address", "add", ADDRESSES[name], "peer", other, "dev", name, where=where)
    ip("link", "set", name, "mtu", str(MTU), "txqueuelen", str(DEVICE_QUEUE), "up", where=where)


def nsenter(pid, user):
    command = ["nsenter", f"--net=/proc/{pid}/ns/net"]
    if user:
        command += [f"--user=/proc/{pid}/ns/user", "--preserve-credentials"]
    return command


def overrun(pid, device):
    """Packets that the kernel threw away because this program was too slow for them."""
    with open(f"/proc/{pid}/net/dev") as lines:
        for line in lines:
            name, _, counters = line.partition(":")
            if name.strip() == device:
                return int(counters.split()[11])
    return 0


# --- the path -------------------------------------------------------------------


class Direction:
    """Packets on their way to one device, in order: each takes the same time once it has left."""

    def __init__(self, device, arguments, name):
        self.device = device
        self.loss = arguments.loss
        self.delay = arguments.delay_ms / 1000
        self.seconds_per_byte = 8 / (arguments.kbit * 1000) if arguments.kbit else 0
        self.free = 0.0
        self.room = arguments.queue
        self.fate = random.Random(f"{arguments.seed} {name}")
        self.waiting = collections.deque()
        self.counts = {"passed": 0, "bytes": 0, "lost": 0, "refused": 0}

    def take(self, packet, now):
        # The kernel's own IPv6 chatter takes no part: its number is not the seed's.
        if packet[0] >> 4 != 4:
            return
        if self.fate.random() < self.loss:
            self.counts["lost"] += 1
        elif len(self.waiting) >= self.room:
            self.counts["refused"] += 1
        else:
            self.free = max(self.free, now) + len(packet) * self.seconds_per_byte
            self.waiting.append((self.free + self.delay, packet))

    def deliver(self, now):
        waiting = self.waiting
        while waiting and waiting[0][0] <= now:
            packet = waiting.popleft()[1]
            try:
                os.write(self.device, packet)
                self.counts["passed"] += 1
                self.counts["bytes"] += len(packet)
            except OSError:
                self.counts["refused"] += 1

    def due(self):
        return self.waiting[0][0] if self.waiting else None


def carry(ways):
    """Until standard input ends: whatever comes out of a device takes its way."""
    stdin = sys.stdin.fileno()
    sources = [*ways, stdin]
    while True:
        dues = [due for due in (way.due() for way in ways.values()) if due is not None]
        wait = max(0, min(dues) - time.monotonic()) if dues else None
        ready, _, _ = select.select(sources, [], [], wait)
        now = time.monotonic()
        for source in ready:
            if source == stdin:
                if not os.read(stdin, 4096):
                    return
                continue
            way = ways[source]
            # Not for ever: what is due must not wait behind what comes.
            for _ in range(64):
                try:
                    way.take(os.read(source, 65536), now)
                except BlockingIOError:
                    break
        now = time.monotonic()
        for way in ways.values():
            way.deliver(now)


if __name__ == "__main__":
    main()
