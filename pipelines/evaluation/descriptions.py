"""Figures of merit in words, for a terminal: of every kind of model, by the keys of the JSON document."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.anomaly.rate_claim import RateClaim
from pipelines.base.files import write_json
from pipelines.base.percentages import percent, promised
from pipelines.base.safe_text import plural, printable
from pipelines.data.classes import named

log = logging.getLogger(__name__)


def describe_evaluation(figures: Mapping[str, Any]) -> Iterator[str]:
    """Return the figures of any model as lines for a terminal."""
    kinds = {  # by a key that the figures of no other kind have
        "iwae": _describe_bound,
        "probe": _describe_probe,
        "confusion": _describe_classes,
        "n_grey": _describe_colorization,
        "levels": _describe_restoration,
        "dice": _describe_segmentation,
    }
    describe = next((describe for key, describe in kinds.items() if key in figures), _describe_scores)
    return describe(figures)


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Write figures as JSON; where it fails, print them: they may be the work of hours.

    Raises:
        OSError: They cannot be written.
    """
    try:
        write_json(path, figures)
    except (OSError, ValueError):
        log.error("%s cannot be written; the figures are:", path)
        for line in describe_evaluation(figures):
            log.error("%s", line)
        raise


def _describe_scores(figures: Mapping[str, Any]) -> Iterator[str]:
    good, bad = figures["n_good"], figures["n_bad"]
    interval = figures["image_auroc_interval"]
    spread = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    yield f"image AUROC {_number(figures['image_auroc'])}{spread} on {good} good and {bad} defective images"
    claim = RateClaim.model_validate(figures.get("calibration") or {})
    masks = figures.get("masks", {}).get("used")
    measured = {
        "image AP": _number(figures["image_ap"]),
        "pixel AUROC": _number(figures["pixel_auroc"]) + _count_masks(figures["pixel_auroc"], masks, bad),
        "AUPRO": _number(figures["aupro"]) + _count_masks(figures["aupro"], masks, bad),
        "false alarms": _compare_with_asked(figures, claim),
        **({"as measured in training": text} if (text := claim.measured and str(claim.measured)) else {}),
        "defects found": _share(figures["tpr_at_threshold"]),
        "images per second": _number(figures["images_per_second"], 1),
    }
    for name, text in measured.items():
        yield f"{name:18} {text}"
    others = ", ".join(f"{name} {_number(block['image_auroc'])}" for name, block in figures["quantities"].items())
    yield f"image AUROC of other quantities of the bound: {others}"
    for name, block in figures["defects"].items():
        partly = _count_masks(block["aupro"], block.get("n_masks"), block["n"])
        yield (
            f"  {name:16} n {block['n']:<4} AUROC {_number(block['image_auroc'])}  "
            f"AUPRO {_number(block['aupro'])}{partly}"
        )


def _count_masks(value: float | None, used: int | None, images: int) -> str:
    partly = value is not None and used is not None and used < images
    return f" ({plural(used or 0, 'mask')} of {plural(images, 'image')})" if partly else ""


def _compare_with_asked(figures: Mapping[str, Any], claim: RateClaim) -> str:
    """Return the realised rate beside the one asked, promised or not, and the range that chance alone explains."""
    realised, interval, rate = figures["fpr_at_threshold"], figures["fpr_interval"], figures["false_alarms"]
    if realised is None or rate is None:
        return _share(realised)
    expected = ""
    if interval:
        expected = f", chance explains {percent(interval[0])} to {percent(interval[1])}{claim.condition}"
    text = f"{percent(realised)} of good images ({claim.is_what} {promised(rate)}{expected})"
    if interval and realised > interval[1]:
        broken = "The promise does not hold here" if claim.is_proved else "That is more than was asked"
        text += f". {broken}: train on good images like these"
    return text


def _describe_bound(figures: Mapping[str, Any]) -> Iterator[str]:
    error = figures["iwae_error"]
    sure = "of one image: no standard error" if error is None else f"standard error {error:.2f}"
    yield (
        f"log-likelihood of {figures['n_images']} images, at least: {figures['iwae']:.2f} nats an image "
        f"({figures['samples']} samples; {sure}), "
        f"{figures['bits_per_dim']:.4f} bits for each of {figures['dims']} dimensions"
    )
    yield f"ELBO {figures['elbo']:.2f}: rate {figures['rate']:.2f}, distortion {figures['distortion']:.2f}"


def _describe_probe(figures: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"linear classifier of {figures['classes']} classes that learns from {figures['labelled']} of "
        f"{figures['n_images']} images:"
    )
    yield "  " + named([f"{name} ({count:,})" for name, count in figures["images_of"].items()])
    words = {
        "latents": f"{figures['latents']} numbers of the embedding",
        "pca": "as many principal components",
        "pixels": "pixels",
    }
    for name, block in figures["probe"].items():
        yield f"  {words[name]:28} right {100 * block['accuracy']:.2f} % (+- {100 * block['spread']:.2f})"


def _describe_classes(figures: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"class right for {_share(figures['accuracy'])} of {figures['n_known']} images of known classes "
        f"(mean over classes {_share(figures['balanced_accuracy'])}; of those not rejected "
        f"{_share(figures['accuracy_accepted'])})"
    )
    yield f"  probabilities: off by {100 * figures['ece']:.2f} points on average (expected calibration error)"
    if figures["n_other"]:
        of_others = f"{figures['n_other']} images of no known class ({named(figures['others'])})"
        yield (
            f"rejected: {_share(figures['rejected_other'])} of {of_others}, {_share(figures['rejected_known'])} of "
            f"known ones; AUROC {figures['rejection_auroc']:.4f}"
        )
    else:
        yield f"rejected: {_share(figures['rejected_known'])} of them; there are no images of other classes"
    for name, block in figures["confusion"].items():
        count = sum(block.values())
        wrong = sorted(((n, other) for other, n in block.items() if other != name and n), reverse=True)[:2]
        taken = ", ".join(f"{n} taken for {printable(other)}" for n, other in wrong)
        share = _share(block.get(name, 0) / count)
        yield f"  {printable(name):16} n {count:<5} right {share}{'  ' * bool(taken)}{taken}"


def _describe_colorization(figures: Mapping[str, Any]) -> Iterator[str]:
    found = figures["levels"]["default"]
    grey, own, drawn = (found["baselines"][name] for name in ("input", "own_mean", "sample"))
    yield f"{figures['task']} of {figures['n_images']} images, {found['seconds']:.2f} s for each"
    yield (
        f"  error of a and b: {found['ab_mae']:.2f}, of a sample {drawn['ab_mae']:.2f} (grey {grey['ab_mae']:.2f}, the "
        f"image's own mean colour {own['ab_mae']:.2f})"
    )
    yield (
        f"  colourfulness: {found['colourfulness']:.1f}, of samples {drawn['colourfulness']:.1f}, which is "
        f"{found['colourfulness_ratio']:.0%} of the true; samples are {found['difference']:.1f} levels apart"
    )
    yield f"  PSNR {found['psnr']:.2f} dB (grey {grey['psnr']:.2f}); {_describe_error_bars(found)}"


def _describe_restoration(figures: Mapping[str, Any]) -> Iterator[str]:
    yield f"{figures['task']} of {figures['n_images']} images"
    for level, each in figures["levels"].items():
        given = each["baselines"]["input"]
        yield (
            f"  level {level:5} PSNR {each['psnr']:.2f} dB (input {given['psnr']:.2f}), SSIM {_number(each['ssim'])} "
            f"(input {_number(given['ssim'])}), {each['seconds']:.2f} s for each image"
        )
        for name, other in each["baselines"].items():
            if name != "input":
                yield (
                    f"        {name:10} PSNR {other['psnr']:.2f} dB, SSIM {_number(other['ssim'])}, "
                    f"{other['seconds']:.2f} s for each image"
                )
        told = (("noise as papers have it", each), ("as files hold it", each["files"]))
        for words, found in told if each["psnr"] != each["files"]["psnr"] else (("as files hold it", each),):
            yield f"        {words}: PSNR {found['psnr']:.2f} dB; {_describe_error_bars(found)}"


def _describe_error_bars(found: Mapping[str, Any]) -> str:
    """Return what `Sums.measure_error_bars` found in words."""
    inside = ", ".join(f"{float(share):.0%}: {share_found:.1%}" for share, share_found in found["coverage"].items())
    return f"error bars: NLL {found['nll']:.3f} nats (constant {found['constant_nll']:.3f}), coverage {inside}"


def _describe_segmentation(figures: Mapping[str, Any]) -> Iterator[str]:
    yield f"{figures['task']} of {figures['n_images']} images, {figures['seconds']:.2f} s for each"
    yield f"  Dice {figures['dice']:.4f}, IoU {figures['iou']:.4f} (1: equal to the true labels)"
    yield (
        f"  probabilities: off by {100 * figures['ece']:.2f} points on average (expected calibration error), "
        f"NLL {figures['nll']:.4f} nats for each pixel"
    )


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
