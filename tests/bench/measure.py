"""What every benchmark measures with: a process by /proc, percentiles, where figures are kept.

CPU is user plus system time of a process, in % of one core. Cores may be shared: compare
ratios, not absolutes.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FOLDER = Path("build/bench")


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_cpu_s() -> float:
    """Seconds all cores have worked so far, for whomever."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The value below which so many percent lie; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else None


def machine() -> str:
    """What the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def keep(name: str, figures: Mapping[str, Any]) -> Path:
    """Write the figures, and what they were measured on, as JSON; returns where."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    file = _FOLDER / f"{name}.json"
    file.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
    return file
