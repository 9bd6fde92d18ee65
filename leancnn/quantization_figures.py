"""What quantizing a network cost and brought, for people and as JSON values."""

from dataclasses import asdict, dataclass
from typing import Any

from leancnn.compiler.ranges import CLIPPED
from leancnn.tables import printable, table


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuning:
    """A training in fake quantization, beside integers that were made without it."""

    recipe: str
    epochs: float
    lr: float
    """Its first rate, from which it falls."""
    accuracy_int8: float | None
    """Of the integers after it, on the validation part, 0..1; None without one."""
    accuracy_int8_without: float | None
    """Of those made without it."""

    @property
    def kept(self) -> bool:
        """Whether it is what is saved: where it is better, and where nothing can tell."""
        if self.accuracy_int8 is None or self.accuracy_int8_without is None:
            return True
        return self.accuracy_int8 > self.accuracy_int8_without

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {**asdict(self), "kept": self.kept}

    def text(self) -> str:
        """One sentence."""
        epochs = f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}"
        what = f"by {printable(self.recipe)}, {epochs} from a rate of {self.lr:.2g}"
        if self.accuracy_int8 is None or self.accuracy_int8_without is None:
            return f"trained in fake quantization {what}; no validation part says whether it helped"
        found = f"{self.accuracy_int8:.2%} of the validation part right, without it "
        found += f"{self.accuracy_int8_without:.2%}"
        if self.kept:
            return f"trained in fake quantization {what}: {found}"
        return f"the training in fake quantization {what}, is not kept: {found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What quantizing a network cost and brought."""

    network: str
    out: str
    images: int
    """Calibration images, of the train part."""
    seed: int
    accuracy: float | None
    """On the validation part, 0..1, of the floats; None without one."""
    accuracy_int8: float | None
    val_images: int
    bytes: int
    """Of the weights as floats."""
    bytes_int8: int
    us: float | None
    """One image on this machine's clock, compiled; None without a C compiler, or not timed."""
    us_int8: float | None
    layers: tuple[tuple[str, float], ...]
    """Those whose output is furthest from the floats', relative to how much that varies."""
    errors: tuple[tuple[str, float], ...]
    """The same of every layer, in the network's order."""
    clipped: tuple[tuple[str, float], ...]
    """Values of which more than a hundredth lies beyond the range of their bytes, and the share."""
    ten_bit: tuple[str, ...] = ()
    """Convolutions whose weights have 10 bits, so that a budget holds."""
    floats: tuple[str, ...] = ()
    """Values computed in float32: without an integer form, or so that a budget holds."""
    finetuned: str | None = None
    """The recipe by which it was trained in fake quantization first; None also where that training
    was not kept."""
    finetuning: Finetuning | None = None
    """That training, kept or not."""

    @property
    def points_lost(self) -> float | None:
        """Percentage points of validation accuracy; below 0: gained."""
        if self.accuracy is None or self.accuracy_int8 is None:
            return None
        return 100 * (self.accuracy - self.accuracy_int8)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        tuning = None if self.finetuning is None else self.finetuning.to_json()
        return {**asdict(self), "finetuning": tuning, "points_lost": self.points_lost}

    def text(self) -> str:
        """The figures for people."""
        rows: list[dict[str, object]] = []
        if self.accuracy is not None and self.accuracy_int8 is not None:
            rows.append(_row("validation accuracy", self.accuracy, self.accuracy_int8, "{:.2%}"))
        rows.append(_row("bytes of weights", self.bytes, self.bytes_int8, "{:,}"))
        if self.us is not None and self.us_int8 is not None:
            rows.append(_row("µs an image, compiled", self.us, self.us_int8, "{:,.1f}"))
        lines = [
            f"{printable(self.out)}: {printable(self.network)} in 8-bit integers, ranges from "
            f"{self.images:,} images of the train part, seed {self.seed}",
            table(rows),
        ]
        if self.points_lost is not None:
            lines.append(
                f"{self.points_lost:+.2f} points lost on {self.val_images:,} images of the "
                "validation part"
            )
        if self.finetuning is not None:
            lines.append(self.finetuning.text())
        if self.ten_bit:
            names = ", ".join(self.ten_bit)
            lines.append(f"weights of 10 bits, so that the budget holds: {names}")
        if self.floats:
            lines.append(f"computed in float32, not in integers: {', '.join(self.floats)}")
        worst = ", ".join(f"{name} {error:.1%}" for name, error in self.layers)
        lines.append(f"layers furthest from the floats: {worst}")
        if self.clipped:
            text = ", ".join(f"{name} {share:.1%}" for name, share in self.clipped)
            lines.append(f"more than {CLIPPED:.0%} of the values clipped: {text}")
        return "\n".join(lines)


def _row(what: str, before: float, after: float, form: str) -> dict[str, object]:
    return {"": what, "float32": form.format(before), "int8": form.format(after)}
