"""Simulates two hosts on one machine, with a cable of a chosen delay between them.

The kernel can delay packets by itself (``netem``), but not every kernel has this module. Here each
host is a network namespace with a TUN device, and a process carries each packet from one device to
the other after the delay. This needs root and iproute2.
"""

import contextlib
import fcntl
import heapq
import os
import select
import struct
import subprocess
import sys
import time

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
# Packets are large and therefore few, because the process that carries them runs Python.
_MTU = 65_000
ADDRESSES = ("10.78.0.1", "10.78.0.2")


class Hosts:
    """Two hosts with the addresses ``ADDRESSES``; ``on`` starts a command on one of them.

    Args:
        names: names of the network namespaces of the hosts.
        carrier: the process that carries the packets.
    """

    def __init__(self, names, carrier):
        self.names, self._carrier = names, carrier

    def on(self, host):
        """Returns the beginning of a command that runs on host 0 or 1."""
        return ["ip", "netns", "exec", self.names[host]]

    def delay(self, milliseconds):
        """Sets the time that a packet takes to the other host and back."""
        self._carrier.stdin.write(f"{milliseconds / 2e3}\n".encode())
        self._carrier.stdin.flush()


@contextlib.contextmanager
def two_hosts(milliseconds):
    """Starts the two hosts and the cable.

    Args:
        milliseconds: time that a packet takes to the other host and back.

    Yields:
        The ``Hosts``.

    Raises:
        OSError: if this machine refuses namespaces or TUN devices.
    """
    names = [f"align{os.getpid()}-{number}" for number in (0, 1)]
    devices, carrier = [], None
    try:
        for number, name in enumerate(names):
            device = f"al{os.getpid()}-{number}"
            _run("ip", "netns", "add", name)
            devices.append(_open_device(device))
            _run("ip", "link", "set", device, "netns", name)
            inside = ("ip", "-n", name)
            own, peer = ADDRESSES[number], ADDRESSES[1 - number]
            _run(*inside, "addr", "add", own, "peer", peer, "dev", device)
            _run(*inside, "link", "set", device, "mtu", str(_MTU), "up")
            _run(*inside, "link", "set", "lo", "up")
        carry = [sys.executable, __file__, *map(str, devices)]
        carrier = subprocess.Popen(carry, pass_fds=devices, stdin=subprocess.PIPE)
        hosts = Hosts(names, carrier)
        hosts.delay(milliseconds)
        yield hosts
    finally:
        if carrier:
            carrier.kill()
            carrier.communicate()
        for device in devices:
            os.close(device)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _run(*words):
    """Runs a command of iproute2; raises OSError with its error output if it fails."""
    try:
        ended = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        raise OSError(f"no {words[0]}: install iproute2") from None
    if ended.returncode:
        raise OSError(f"{' '.join(words)}: {ended.stderr.strip()}")


def _open_device(name):
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _carry(devices):
    """Carries packets in both directions; each line of stdin sets the delay of later packets."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)  # a busy core would add to the delay
    for device in devices:
        os.set_blocking(device, False)
    waiting, count, seconds = [], 0, 0.0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, device, packet = heapq.heappop(waiting)
            # a full queue loses the packet, as a real cable does
            with contextlib.suppress(OSError):
                os.write(device, packet)
        timeout = max(waiting[0][0] - time.monotonic(), 0.0) if waiting else None
        ready, _, _ = select.select([*devices, sys.stdin.fileno()], [], [], timeout)
        if sys.stdin.fileno() in ready:
            ready.remove(sys.stdin.fileno())
            seconds = float(os.read(sys.stdin.fileno(), 100).split()[-1])
        for device in ready:
            other = devices[1 - devices.index(device)]
            with contextlib.suppress(BlockingIOError):
                count += 1
                packet = os.read(device, _MTU + 100)
                heapq.heappush(waiting, (time.monotonic() + seconds, count, other, packet))


if __name__ == "__main__":
    _carry([int(device) for device in sys.argv[1:]])
