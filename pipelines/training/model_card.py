"""The model card: what a person should know before they schedule a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.anomaly.calibration import Calibration
from pipelines.base.percentages import percent, promised
from pipelines.base.safe_text import printable
from pipelines.base.warned import kept_warnings
from pipelines.data.plan import Plan
from pipelines.data.splits import is_crossed
from pipelines.data.training_images import TrainingData
from pipelines.jobfile.job import Job
from pipelines.models.model_file import (
    CARD_FILE,
    LEARNED,
    ColorizationMetadata,
    CommonMetadata,
    Metadata,
    RestorationMetadata,
    SegmentationMetadata,
)
from pipelines.registry.history import figures_in_words
from pipelines.training.network import is_backbone_packaged, prior_words
from pipelines.training.promotion import Decision
from pipelines.training.score_in_words import ALONE, WEIGHT, explain_score

UNKNOWN = "not stated: ask whoever owns the images"


def write_card(
    folder: Path,
    job: Job,
    plan: Plan,
    data: TrainingData,
    metadata: Metadata,
    calibration: Calibration,
    decision: Decision,
    measured: dict[str, float],
    remarks: Sequence[str] = (),
) -> str:
    """Write card.md into the bundle and return its text.

    Args:
        folder: The bundle.
        job: What was asked.
        plan: What was chosen from the images.
        data: The images.
        metadata: Of the exported file.
        calibration: Of the same file.
        decision: The promotion rule's, with its figures.
        measured: Training's own figures: parity, seconds, held-out bound.
        remarks: What a person should look at in the training folder.
    """
    rate = calibration.default_false_alarms()
    figures = {**measured, **decision.figures}
    one = "image" if metadata.window_overlap is None else "window"
    lines = [
        *_head(metadata),
        f"Scores images like those under `{job.data.images.name}`: {plan.image_format.channels} channel(s), "
        f"{plan.image_format.bit_depth} bits. {_size(metadata)} A higher score is more abnormal. Images unlike the "
        "training folder in camera, light or subject get high scores because they are unlike it, not because they are "
        "defective.",
        *(
            ["", f"Every {one} gets the same brightness and contrast first: exposure alone changes no score."]
            * bool(metadata.standardised)
        ),
        *(
            ["", f"Normal changes of good images, which raise no alarm: {', '.join(job.data.normal_changes)}."]
            * bool(job.data.normal_changes)
        ),
        "",
        "## Training data",
        "",
        f"- {len(data.files)} different images: {_splits(data)}; {len(data.failed)} could not be read",
        f"- digest of their contents: `{data.digest}`",
        f"- licence: {metadata.licence or UNKNOWN}",
        *_answers(data),
        *(f"- to look at: {remark}" for remark in remarks),
        "",
        "## Model",
        "",
        f"- task `{job.task}`, likelihood `{metadata.likelihood}`, latents {metadata.latent_shape}, "
        f"D = {metadata.dims} dimensions, S = {metadata.samples} samples",
        *_backbone(metadata),
        *(["- the likelihood is a weighted composite: y holds several copies of the image"] * metadata.composite),
        *_what_is_bounded(job, len(metadata.classes)),
        *_classes(metadata, figures),
        f"- score: {metadata.score}",
        _exported(metadata),
        "",
        *explain_score(metadata, figures),
        "## Calibration",
        "",
        f"- n = {calibration.n} good images, {_used_for(calibration)}",
        f"- smallest false-alarm rate that they can tell: {promised(calibration.smallest_rate)}; {calibration.is_what} "
        f"{promised(rate)}, threshold {calibration.threshold(rate):.4f}",
        *(f"- {key}: {words}" for key, words in calibration.describe(rate)),
        f"- 95 % of calibration sets of this size realise a rate in "
        f"{_interval(calibration, rate)} on 1000 further good images{calibration.condition}",
        "",
        *_measured({key: each for key, each in figures.items() if not key.startswith((ALONE, WEIGHT))}, decision),
        "## Limits",
        "",
        "The figure on synthetic defects compares versions with each other; it does not predict how well real defects "
        "are found. Measure that with `kintsugi evaluate` on a labelled folder.",
        "",
    ]
    return _written(folder, lines)


def _size(metadata: Metadata) -> str:
    """What becomes of images of other sizes."""
    rows, columns = metadata.size
    if metadata.window_overlap is None:
        return f"Any size is taken and resized inside the model to {rows} x {columns}."
    return (
        f"Any size is taken as it is, at full resolution, in windows of {rows} x {columns} pixels that share "
        f"{metadata.window_overlap} or more with the next; the score is the highest window's. What is larger than a "
        "window is not seen as a whole; a smaller image is mirrored until it fills one."
    )


def _splits(data: TrainingData) -> str:
    count = {name: len(indices) for name, indices in data.split.items()}
    if is_crossed(data.split):
        return f"{count['train']} to train and to calibrate, by folds, {count['select']} in reserve"
    return f"{count['train']} to train, {count['select']} to select, {count['calibrate']} to calibrate"


def _answers(data: TrainingData) -> list[str]:
    """What answers of people have changed."""
    more, fewer = len(data.taught), len(data.left_out)
    line = f"- answers of people: {more} more images train, and calibrate nothing; {fewer} of the folder are left out"
    return [line] if more or fewer else []


def _used_for(calibration: Calibration) -> str:
    if calibration.is_proved:
        return "used for neither training nor any choice"
    return f"each scored by one of {calibration.folds} models that had not seen it"


def write_restoration_card(
    folder: Path, job: Job, metadata: RestorationMetadata, size: str, decision: Decision, figures: dict[str, float]
) -> str:
    """Write card.md of a model that mends images into the bundle and return its text.

    Args:
        folder: The bundle.
        job: What was asked.
        metadata: Of the exported file.
        size: Of the network.
        decision: The promotion rule's.
        figures: Measured in training, in dB and seconds.
    """
    low, high = metadata.strengths
    strengths = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    kind = f"damage of the kind `{metadata.damage}`, {metadata.level}: {strengths}"
    if metadata.damage == LEARNED:
        kind = f"the damage of images like those under `{(job.data.degraded or job.data.images).name}`"
    each = metadata.multiplications
    cost = "" if each is None else f"; {each / 1000:.0f} thousand multiplications for each pixel"
    lines = [
        *_head(metadata),
        f"Takes {_colour(metadata)} images of any size, 8 or 16 bits. Trained to undo {kind}. Other damage is mended "
        "less well, or not at all.",
        *never_seen(metadata),
        *([f"The result is {metadata.scale} times as large."] * (metadata.scale > 1)),
        "",
        "The result is an estimate. Where the error bar (`restored_scale`) is wide, details are likely rather than "
        "certain: do not measure what matters on them.",
        "",
        *sharp_before_faithful(metadata),
        *_trained_on(job, metadata, "error bars"),
        "## Model",
        "",
        f"- task `{metadata.task}`, network {size}, sees {metadata.halo} pixels far{cost}",
        _exported(metadata),
        "",
        *_error_bars(metadata.intervals),
        *_measured(figures, decision),
    ]
    return _written(folder, lines)


def write_segmentation_card(
    folder: Path, job: Job, metadata: SegmentationMetadata, size: str, decision: Decision, figures: dict[str, float]
) -> str:
    """Write card.md of a model that labels pixels into the bundle and return its text. See `write_restoration_card`."""
    lines = [
        *_head(metadata),
        f"Takes {_colour(metadata)} images of any size, 8 or 16 bits, like those under "
        f"`{job.data.images.name}`: same subject, about the same magnification. Labels: "
        f"{', '.join(f'{value} {name}' for value, name in enumerate(metadata.classes))}.",
        "",
        "The labels are an estimate. Where the error bar (`restored_scale`) is wide, two classes are about as likely. "
        "On images unlike the training folder they may be wrong and sure of it.",
        "",
        *_trained_on(job, metadata, "probabilities"),
        "## Model",
        "",
        f"- task `{metadata.task}`, network {size}, sees {metadata.halo} pixels far, "
        f"{metadata.latent_channels} latents for every {metadata.size_multiple} x {metadata.size_multiple} pixels",
        f"- probabilities were brought to held-out images (temperature {metadata.temperature:.2f})",
        _exported(metadata),
        "",
        *_measured(figures, decision),
    ]
    return _written(folder, lines)


def write_colorization_card(
    folder: Path, job: Job, metadata: ColorizationMetadata, decision: Decision, figures: dict[str, float]
) -> str:
    """Write card.md of a model that colours images into the bundle; return its text. See `write_restoration_card`."""
    licence = " (the weights that ship: Apache-2.0)" if is_backbone_packaged(job) else ""
    lines = [
        *_head(metadata),
        "Takes images of any size, 8 or 16 bits; of colour images only the luma is looked at. Colours are those of "
        f"images like the ones under `{job.data.images.name}`. The luma of the result is that of the image.",
        "",
        "The colours are likely, not true: what a grey image does not tell is made up. The plain result is the middle "
        "of what is likely, and rather pale; samples are as colourful as photographs. Never take a colour for "
        "evidence.",
        "",
        *_trained_on(job, metadata, "error bars"),
        "## Model",
        "",
        f"- task `{metadata.task}`, on features of `{metadata.backbone}`{licence} of the image "
        f"at {metadata.side} x {metadata.side} pixels; {metadata.latents} latents for an image",
        f"- chroma of samples is multiplied by {metadata.gain:.2f}: held-out images are then as colourful as they were",
        _exported(metadata, ", weights in half precision"),
        "",
        *_error_bars(metadata.intervals),
        *_measured(figures, decision),
    ]
    return _written(folder, lines)


def _backbone(metadata: Metadata) -> list[str]:
    """What y is made of, where that is features."""
    if metadata.backbone is None:
        return []
    where = f"strides {', '.join(map(str, metadata.strides))}"
    if metadata.layers is not None:
        patch, layers = metadata.strides[0], ", ".join(map(str, metadata.layers))
        where = f"layers {layers} (one patch is {patch} x {patch} pixels)"
    return [f"- y: features of `{metadata.backbone}`, a frozen network, at {where}"]


def _classes(metadata: Metadata, figures: Mapping[str, float]) -> list[str]:
    """What it tells of classes, where it does."""
    if not metadata.classes:
        return []
    return [
        f"- tells {len(metadata.classes)} classes ({', '.join(map(_code, metadata.classes))}), the sub-folders of the "
        f"training images; right for {percent(figures['challenger_accuracy'])} of held-out images, by which the best "
        "weights were chosen, too",
        f"- probabilities of classes are by Bayes' rule over the bounds, at temperature {figures['temperature']:.2f}, "
        "which held-out images chose; an image that is unlikely under every class is rejected, whatever its class",
    ]


def never_seen(metadata: RestorationMetadata) -> list[str]:
    """What training without pairs means for the figures."""
    if metadata.damage != LEARNED:
        return []
    return [
        "",
        "**Clean twins were never seen**: what the damage is was learned from damaged images alone, and mending from "
        "clean images with a copy of it. PSNR and error bars below are of held-out clean images that were damaged so: "
        "they hold as far as the copy is true. Where clean twins of some damaged images can be had, measure with "
        "`kintsugi restore FOLDER --reference CLEAN`.",
    ]


def sharp_before_faithful(metadata: RestorationMetadata) -> list[str]:
    """What an adversarial term in training means for whoever looks at the result."""
    if metadata.adversarial is None:
        return []
    return [
        f"**Sharp before faithful**: training also asked (weight {metadata.adversarial:g}) that results pass for real "
        "images. They look sharper, and are on average further from the truth: texture and fine detail may be made up. "
        "The result is not the model's best guess, and what was trained bounds no likelihood. The error bars below "
        "were counted anew on held-out images: they hold for images like those, and say nothing of what is made up.",
        "",
    ]


def _code(name: str) -> str:
    """A name out of the user's hands as it is, whatever Markdown would make of it."""
    return f"`` {printable(name)} ``" if "`" in name else f"`{printable(name)}`"


def _what_is_bounded(job: Job, classes: int) -> list[str]:
    """The prior, and how far what was trained is from a bound on the likelihood."""
    model, table = job.model, job.train
    lines = [f"- prior of the latents: {prior_words(job, classes)}"]
    if classes:
        lines.append("- training also asked that classes can be told apart: what it minimised is no bound")
    if model.dropout:
        lines.append(
            f"- training left out {percent(model.dropout)} of inner maps at each step; the model leaves out none"
        )
    if table.objective == "iwae":
        lines.append("- trained by the importance-weighted bound; the reported `elbo` is the plain one")
    if table.adversarial is not None:
        lines.append(
            f"- training did not maximise the bound alone: reconstructions and images from the prior were also to pass "
            f"for real (an adversarial term of weight {table.adversarial:g}), so they are sharper than what the bound "
            "asks for, and details may be made up; the reported `elbo` is the plain bound"
        )
    if table.beta != 1 or table.free_bits:
        weighed = "the dependence of latents" if table.objective == "total_correlation" else "the rate"
        lines.append(
            f"- training weighed {weighed} by {table.beta:g}, with {table.free_bits:g} nats free in each channel: what "
            "it minimised is no bound; the reported `elbo` is"
        )
    return lines


def _head(metadata: CommonMetadata) -> list[str]:
    return [f"# {metadata.name}", "", metadata.summary, "", "## Use", ""]


def _colour(metadata: CommonMetadata) -> str:
    return "grey" if metadata.channels == 1 else "colour"


def _error_bars(intervals: Mapping[str, float]) -> list[str]:
    return [
        "## Error bars",
        "",
        "Counted on held-out images: the true value lies within this many standard deviations of the restored one.",
        "",
        "| share of pixels | standard deviations |",
        "|---|---|",
        *(f"| {float(share):.0%} | {width:.2f} |" for share, width in intervals.items()),
        "",
    ]


def _trained_on(job: Job, metadata: CommonMetadata, rests: str) -> list[str]:
    """The images of an image-to-image model, some of which were held out for what rests on them."""
    images = metadata.images
    clean = sum(images[name] for name in ("train", "select", "calibrate"))
    degraded = job.data.degraded
    return [
        "## Training data",
        "",
        f"- {clean} different images under `{job.data.images.name}`: {images['train']} to train, "
        f"{images['select']} to select, {images['calibrate']} for the {rests}",
        *(
            []
            if degraded is None
            else [
                f"- {images['degraded'] + images['degraded_select']} damaged images under `{degraded.name}`, none of "
                f"them beside a clean twin: {images['degraded']} to learn the damage from, "
                f"{images['degraded_select']} to look at"
            ]
        ),
        f"- digest of their pixels: `{metadata.data_digest}`",
        f"- licence: {metadata.licence or UNKNOWN}",
        "",
    ]


def _measured(figures: Mapping[str, float], decision: Decision) -> list[str]:
    """What training found, and what became of the version."""
    return [
        "## Measured",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {label} | {text} |" for label, text in figures_in_words(figures)),
        "",
        f"Promotion: {decision.reason}.",
        "",
    ]


def _written(folder: Path, lines: Sequence[str]) -> str:
    warned = [f"- {printable(each)}" for each in kept_warnings()]
    text = "\n".join([*lines, *(["## Warnings of the training", "", *warned, ""] if warned else [])])
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    return text


def _exported(metadata: CommonMetadata, how: str = "") -> str:
    """By what, and whence: the commit is of whoever keeps the job file, not of this software."""
    where = f"a git repository at commit {metadata.git_commit}" if metadata.git_commit else "no git repository"
    return f"- exported by kintsugi {metadata.kintsugi}{how}; the job file lies in {where}"


def _interval(calibration: Calibration, rate: float) -> str:
    low, high = calibration.interval(rate, 1000)
    return f"{percent(low)} to {percent(high)}"
