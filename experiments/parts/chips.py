"""What a TPU chip can do, by its vendor's published figures, and the time that a program needs at least.

    seconds = max(FLOPs / peak, memory traffic / memory bandwidth, bytes sent / ring bandwidth)

the roofline: no program is faster, and one whose three kinds of work do not overlap at all takes their sum. It is an
estimate from what was compiled; nothing has run.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published peak figures of one chip."""

    flops: float
    """In bfloat16, a second. JAX's default on a TPU multiplies float32 in it, too."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second between chip and memory."""
    links: float
    """Bytes a second to other chips, both directions of all links together."""
    axes: int
    """Of the torus that chips are wired to."""
    source: str

    @property
    def ring(self) -> float:
        """Bytes a second that a chip sends in a ring along one axis of the torus, over two of its links, one way each.

        A slice that does not go all the way round an axis is a line there, on which a ring has half of it.
        """
        return self.links / self.axes / 2


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 400e9, 2, "https://cloud.google.com/tpu/docs/v5e"),
    "v5p": Chip(459e12, 95e9, 2765e9, 1200e9, 3, "https://cloud.google.com/tpu/docs/v5p"),
    "v6e": Chip(918e12, 32e9, 1638e9, 800e9, 2, "https://cloud.google.com/tpu/docs/v6e"),
}
"""By the first part of a topology's name. Read in November 2026."""


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that one chip spends at least on each kind of work."""

    computing: float
    memory: float
    sending: float

    @property
    def seconds(self) -> float:
        """If all three overlap fully."""
        return max(self.computing, self.memory, self.sending)

    @property
    def apart(self) -> float:
        """If nothing overlaps."""
        return self.computing + self.memory + self.sending

    @property
    def bound(self) -> str:
        """What it waits for."""
        return max(("computing", "memory", "sending"), key=lambda name: getattr(self, name))


def chip(topology: str) -> Chip:
    """Of a topology such as `v6e:8x8`. Raises `ValueError` for a chip that is not in the table."""
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise ValueError(
            f"no figures of the chip of {topology!r} are known; name a topology of {', '.join(CHIPS)}, such as v6e:8x8"
        )
    return CHIPS[name]


def roofline(chip: Chip, flops: float, memory: float, sent: float) -> Roofline:
    """Of a program of so many FLOPs, bytes of memory traffic and bytes sent, all of one chip."""
    return Roofline(flops / chip.flops, memory / chip.bandwidth, sent / chip.ring)
