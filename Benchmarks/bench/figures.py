"""Samples, ratios of them, and their table.

Machines differ, and one machine differs from minute to minute: a figure is a ratio of two things that were measured in turn in the same run.
Absolute values stand in the JSON only, and beside a bar that is one.
"""

import json
import platform
import os
import statistics
import time


def quantile(values, share):
    """The value below which that share of the values lies; the nearest one that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values):
    """Where the middle 80 % of the values lie."""
    return quantile(values, 0.1), quantile(values, 0.9)


class Figures:
    """What a run found, in order."""

    def __init__(self):
        self.rows = []
        self.notes = []

    def ratio(self, subject, name, values, base, base_name, unit, bar=None, limit=None):
        """Compares two series of samples by their medians.

        - bar: what the ratio should be at most. limit: what the median itself should be at most, in the unit.

        The spread is that of each sample over the base's sample of the same round, where there are as many, else over the base's median.
        """
        median, base_median = statistics.median(values), statistics.median(base)
        each = zip(values, base) if len(values) == len(base) else ((value, base_median) for value in values)
        low, high = spread([value / (other or base_median) for value, other in each])
        self._add(
            subject, name, median / base_median, low, high, len(values), base_name, bar,
            {"unit": unit, "median": median, "p10_p90": spread(values), "base_median": base_median, "base_p10_p90": spread(base)}, limit)

    def share(self, subject, name, shares, base_name, raw, bar=None):
        """Takes ratios that were computed sample by sample."""
        low, high = spread(shares)
        self._add(subject, name, statistics.median(shares), low, high, len(shares), base_name, bar, raw)

    def note(self, text):
        """Something that a reader of the figures must know."""
        self.notes.append(text)
        print("  " + text, flush=True)

    def _add(self, subject, name, ratio, low, high, count, base_name, bar, raw, limit=None):
        self.rows.append({
            "subject": subject, "figure": name, "ratio": ratio, "p10": low, "p90": high, "samples": count, "of": base_name,
            "bar": bar, "limit": limit, "raw": raw,
        })
        print("  " + line(self.rows[-1]), flush=True)

    def table(self):
        """All rows as text, grouped by subject."""
        lines, subject = [], None
        for row in self.rows:
            if row["subject"] != subject:
                subject = row["subject"]
                lines += ["", subject]
            lines.append("  " + line(row))
        return "\n".join(lines + [""] + ["note: " + note for note in self.notes])

    def write(self, path, options):
        """Everything as JSON, with what is needed to judge it."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump({
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(), "options": options,
                "figures": self.rows, "notes": self.notes,
            }, file, indent=1)
            file.write("\n")


def line(row):
    """One row of the table."""
    bar = f"   bar {row['bar']:g}" if row["bar"] is not None else ""
    if row["limit"] is not None:
        scale, unit = {"s": (1e3, "ms"), "kB": (1e-3, "MB")}[row["raw"]["unit"]]
        bar += f"   {row['raw']['median'] * scale:.2f} {unit}, bar {row['limit'] * scale:g} {unit}"
    return (f"{row['figure']:<58} {number(row['ratio'])} x  [{number(row['p10'])} - {number(row['p90'])}]  n={row['samples']:<4}"
            f" of {row['of']}{bar}")


def number(value):
    """Three digits that count, more or less."""
    digits = 5 if value < 0.01 else 3 if value < 10 else 1 if value < 1000 else 0
    return f"{value:7.{digits}f}"


def machine():
    """The machine in general terms, and how busy it was."""
    return {"cores": os.cpu_count(), "architecture": platform.machine(), "kernel": platform.release().split("-")[0],
            "load": os.getloadavg()}
