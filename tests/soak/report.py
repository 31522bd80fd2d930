"""What a run found, as a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from soak.verdict import Verdict

_SHOWN = 20
_WIDTH = 26


@dataclass(frozen=True)
class Report:
    """The result of a run; `ways` are the ends that lives came to, by name."""

    seed: int
    seconds: float
    kills: int
    ways: Mapping[str, int]
    exastro_faults: Mapping[str, int]
    source_faults: Mapping[str, int]
    jumps: str
    verdicts: Sequence[Verdict]
    peak_mebibytes: float
    open_files: int
    stored_bytes: int
    most_stored_bytes: int

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, repeated or out of order."""
        return all(verdict.is_good for verdict in self.verdicts)

    def lines(self) -> Iterator[str]:
        """Yield the table, a line for each fact, and then what is wrong."""
        for name, value in self._facts().items():
            yield f"{name:<{_WIDTH}}{value}"
        for verdict in self.verdicts:
            for what in ("lost", "repeated", "out_of_order"):
                numbers = getattr(verdict, what)
                if numbers:
                    yield f"{verdict.name}: {what}: {numbers[:_SHOWN]}{' and more' if len(numbers) > _SHOWN else ''}"

    def _facts(self) -> dict[str, object]:
        verdicts = self.verdicts
        return {
            "kills": self.kills,
            "ends of lives": _listed(self.ways),
            "faults of Exastro": _listed(self.exastro_faults),
            "faults of sources": _listed(self.source_faults),
            "clock jumps": self.jumps,
            "served": sum(verdict.served for verdict in verdicts),
            "delivered": sum(verdict.delivered for verdict in verdicts),
            "lost": sum(len(verdict.lost) for verdict in verdicts),
            "repeated": sum(len(verdict.repeated) for verdict in verdicts),
            "parked": sum(verdict.parked for verdict in verdicts),
            "out of order": sum(len(verdict.out_of_order) for verdict in verdicts),
            "peak memory, MiB": f"{self.peak_mebibytes:.1f}",
            "open files, at most": self.open_files,
            "store, MiB": f"{self.stored_bytes / 2**20:.1f} at the end, {self.most_stored_bytes / 2**20:.1f} at most",
            "duration, s": f"{self.seconds:.0f}",
            "seed": self.seed,
        }


def _listed(counts: Mapping[str, int]) -> str:
    return f"{sum(counts.values())}: " + ", ".join(f"{name} {count}" for name, count in counts.items())
