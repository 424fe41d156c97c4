"""ROC and precision-recall curves of the recordings."""

from __future__ import annotations

from pathlib import Path

from tussis.worker.evaluation.curves import curves
from tussis.worker.evaluation.measures import Floats, Truth


def drawn(truth: Truth, scores: Floats, threshold_logit: float, file: Path) -> None:
    """Write the figure as PNG.

    Args:
        truth: bool (n,), true for coughs.
        scores: (n,), bag logits.
        threshold_logit: logit of the manifest's threshold, marked on both curves.
        file: the PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    called = scores > threshold_logit
    sensitivity, alarms = called[truth].mean(), called[~truth].mean()
    precision = truth[called].mean()
    both = curves(list(zip(scores.tolist(), truth.tolist(), strict=True)))
    if both is None:
        raise ValueError("the curves need recordings with a cough and recordings without")
    left.plot(*zip(*both.roc, strict=True), drawstyle="steps-post", color="#1b5e7d")
    left.plot(alarms, sensitivity, "o", color="#c1440e", label="manifest's threshold")
    left.set(
        title=f"ROC, area {both.auroc:.4f}",
        xlabel="share of backgrounds called a cough",
        ylabel="share of coughs found",
    )
    right.plot(*zip(*both.precision_recall, strict=True), color="#1b5e7d")
    right.plot(sensitivity, precision, "o", color="#c1440e", label="manifest's threshold")
    right.set(
        title=f"precision and recall, average precision {both.average_precision:.4f}",
        xlabel="recall: share of coughs found",
        ylabel="precision: share of calls that are coughs",
    )
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower center")
    figure.suptitle(f"{int(truth.sum())} coughs and {int((~truth).sum())} backgrounds, as recorded", fontsize=10)
    figure.savefig(file, dpi=110, metadata={"Software": ""})
    pyplot.close(figure)
