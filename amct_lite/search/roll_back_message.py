"""The end of `accuracy_based_auto_calibration` in words: AMCT's lines, and which layers are float again."""

from collections.abc import Sequence
from pathlib import Path

from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.search.layer_ranking import LayerRanking
from amct_lite.search.result import SearchResult, Stop, Trial

__all__ = ["describe_roll_back", "places"]

MAX_NAMES = 10


def describe_roll_back(
    result: SearchResult, plans: Sequence[LayerPlan], whole: Trial | None, ranking: LayerRanking
) -> str:
    """The message.

    Args:
        result: The outcome, its files and config.
        plans: The user's plan.
        whole: The trial of the network in which everything is quantized; None where it was not reached.
        ranking: What layers were ranked by.
    """
    wanted = [plan.layer.name for plan in plans if plan.config is not None]
    rolled_back = [name for name in wanted if not result.config[name]["quant_enable"]]
    saved = "fake_quant_model" in result.files
    lines = [f"Accuracy of original model is         {result.original_metric:.9g}"]
    if whole is not None:
        lines.append(f"Accuracy of global quantized model is {whole.metric:.9g}")
    if saved:
        lines.append(f"Accuracy of saved model is            {_metric(result)}")
    lines.append(_verdict(result, wanted, rolled_back, saved=saved))
    if not ranking.measured:
        lines.append(
            f"The sensitivity {ranking.sensitivity} is derived from calibration's statistics: there are no samples to"
            " measure it on."
        )
    return "\n".join(lines)


def places(folder: Path, record_file: Path) -> str:
    """Where the results lie."""
    return f"The generated model is stored in dir: {folder}\nThe records file is stored in dir: {record_file}"


def _metric(result: SearchResult) -> str:
    return "unknown" if result.metric != result.metric else f"{result.metric:.9g}"


def _verdict(result: SearchResult, wanted: Sequence[str], rolled_back: Sequence[str], *, saved: bool) -> str:
    evaluations = len(result.trials)
    stopped = "" if result.stop is Stop.DONE else f" Stopped by {result.stop}; called again, the search goes on."
    if not saved:
        return (
            "No quantized model are generated due to all quant layers are roll backed: none of the"
            f" {evaluations - 1} choices of layers that were tried satisfies. Allow a larger drop, or calibrate with"
            " more or other data."
        )
    if not result.satisfied:
        return (
            f"No choice of layers satisfied within {evaluations} evaluations; the saved model is a best effort."
            f" Allow a larger drop or more evaluations.{stopped}"
        )
    if not rolled_back:
        return f"All {len(wanted)} layers are quantized ({evaluations} evaluations).{stopped}"
    more = len(rolled_back) - MAX_NAMES
    names = ", ".join(rolled_back[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
    outlook = f" {result.outlook}" if result.outlook and not stopped else ""
    return (
        f"{len(rolled_back)} of {len(wanted)} layers are rolled back to float ({evaluations} evaluations): {names}."
        f"{stopped or outlook}"
    )
