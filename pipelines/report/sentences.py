"""Sentences of reports: on a run, an image, heat maps, and the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from pipelines.anomaly.rate_claim import RateClaim
from pipelines.base.safe_text import printable
from pipelines.report import words
from pipelines.report.folder import HeatFacts, Picture, ReviewFacts, Run, ShareFacts

CLEARLY = 1.25  # an expert is named if its own score is at least this many times the image's score
MANY = 10  # with more regions, the place of one region misleads
_NBSP = "\N{NO-BREAK SPACE}"

# Of a run.

_TITLES = {"teach": "Answers (teach)", "audit": "Answers (audit)", "restore": "Answers"}


def describe_review(facts: ReviewFacts) -> Iterator[tuple[str, str]]:
    """Yield the counts of the answers about a run, and the shares that its audit estimates for all its images."""
    for queue, counts in facts.queues.items():
        if counts:
            yield _TITLES.get(queue, queue), ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())
    if facts.recall is not None and facts.queues.get("audit"):
        yield "Defects found", _say_share(facts.recall, "no defect was found in the audit")
        if facts.precision is not None:
            yield "Flagged images that are defective", _say_share(facts.precision, "no flagged image was audited")
        if facts.recall.high - facts.recall.low > facts.width:
            more = "all images" if facts.needed is None else f"about {facts.needed:,} more"
            yield (
                "For a narrower interval",
                (f"answer {more} of the audit for an interval of {words.format_percent(facts.width)} or less"),
            )
    if facts.pairs:
        yield "Agreement", f"{facts.alike:,} of {facts.pairs:,} pairs of answers about one image agree"


def _say_share(share: ShareFacts, nothing: str) -> str:
    low, high = words.format_percent(share.low), words.format_percent(share.high)
    value = nothing if share.value is None else f"about {words.format_percent(share.value)}"
    return f"{value} (95 % interval {low} to {high})"


def summarise_scores(
    *,
    ok: int,
    failed: int,
    judged: int,
    flagged: int,
    rate: float | None,
    rule: str | None = None,
    unpromised: int = 0,
    claim: RateClaim | None = None,
    by_calibration: int | None = None,
) -> str:
    """Return the verdict of a run in one sentence.

    Args:
        ok: images that were scored.
        failed: files that could not be read.
        judged: images of `ok` that have a verdict.
        flagged: images of `judged` that are abnormal.
        rate: the false-alarm rate that was asked, in 0..1; None where it is not known.
        rule: what took its place, in words, as a budget or a share of false discoveries.
        unpromised: images of `judged` that the rate is not meant for.
        claim: what the rate rests on; None: of an older run.
        by_calibration: images that calibration would flag, where the folder is what they are judged against.
    """
    claim = claim or RateClaim()
    if not ok:
        return f"No image could be scored: {words.plural(failed, 'file')} failed"
    if judged:
        who = f"None of {judged:,}" if not flagged else f"{flagged:,} of {judged:,}"
        text = f"{who} images {'look' if flagged != 1 else 'looks'} abnormal"
        if claim.kind == "folder":
            text = f"{who} images {'stand' if flagged != 1 else 'stands'} out from this folder"
            if by_calibration is not None:
                text += f"; calibration would flag {by_calibration:,}"
        elif not claim.holds:
            text += ", but the threshold was set on other images: "
            text += "many of these are defective, or good images look different now"
        elif rule is not None:
            text += f": {rule}"
        elif rate is not None and unpromised < judged:
            which = "a promised" if claim.is_proved else "a requested"
            text += f" at {which} false-alarm rate of {words.format_promise(rate)}"
        if 0 < unpromised < judged:
            text += f"; none is {'promised' if claim.is_proved else 'known'} for {unpromised:,} of them"
        elif unpromised:
            text += f", without {'a promise' if claim.is_proved else 'a known false-alarm rate'}"
        if judged < ok:
            text += f"; {words.plural(ok - judged, 'image')} without a verdict"
    else:
        text = f"{words.plural(ok, 'image')} scored, without verdicts"
    return f"{text}; {words.plural(failed, 'file')} failed" if failed else text


def summarise_results(verb: str, *, ok: int, failed: int, scale: int) -> str:
    """Return what was done to images in one sentence.

    >>> summarise_results("restored", ok=28, failed=2, scale=2)
    '28 images restored, 2 times as large, 2 files failed'
    """
    done = f"{words.plural(ok, 'image')} {verb}" + (f", {scale} times as large" if scale != 1 else "")
    return f"{done}, {words.plural(failed, 'file')} failed" if failed else done


def explain_partial(total: int, run: Run | None, *, is_pictured: bool) -> list[str]:
    """Return why the page of `total` files is partial, in sentences; none for a finished run with its pictures."""
    found = []
    if run is None:
        found.append(
            "There is no run.json in this folder. It would have the folder of the images, the calibration scores, the "
            "times and the model card."
        )
    elif run.finished is None:
        files = run.counts.files
        done = f"{total:,} of {files:,} files" if files else words.plural(total, "file")
        found.append(f"The run has not finished: {done} are in this report. Start the same command again to continue.")
    elif run.counts.files is not None and run.counts.files > total:
        found.append(f"The run counted {run.counts.files:,} files, of which {total:,} are in this report.")
    if not is_pictured:
        found.append("The pictures of the worst images have not been written yet.")
    return found


def advise_left_out(count: int, total: int) -> str:
    """Return what to do about the `total` files left out, of which `count` may be images; empty where none may."""
    if not count:
        return ""
    advice = "save the images that should be read as TIFF or PNG, and start the same command again."
    if count == total:
        return f"{advice[0].upper()}{advice[1:]}"
    return f"{count:,} of them may be {'an image' if count == 1 else 'images'}: {advice}"


def describe_claim(claim: RateClaim, rate: float) -> list[tuple[str, str]]:
    r"""Return the proved and the measured statement on a false-alarm rate, each with its label.

    >>> describe_claim(RateClaim(), 0.01)[0][1]
    'At most 1\xa0% of good images like the calibration images are flagged, on average over calibration sets.'
    """
    return [
        (which.capitalize(), f"{text[0].upper()}{text[1:]}.".replace(" %", f"{_NBSP}%"))
        for which, text in claim.describe(rate)
    ]


# Of an image.


def describe_image(picture: Picture, heat: HeatFacts | None, metadata: Mapping[str, object]) -> list[str]:
    """Return the sentences on a flagged image: its class, the reason, its abnormal regions.

    Args:
        picture: The image.
        heat: The meaning of its map's colours; None if it is not known.
        metadata: Metadata of the model.
    """
    found = []
    if picture.label is not None and picture.label_probability is not None:
        found.append(describe_class(picture.label, picture.label_probability))
    place = "in many places" if picture.place and (picture.regions or 0) > MANY else picture.place
    found += describe_flag(place, _find_aspect(picture, metadata))
    if heat is None:
        return found
    if picture.regions is not None:
        found.append(
            describe_regions(
                picture.regions,
                percent=picture.regions_percent,
                size=(picture.largest_width, picture.largest_height),
                centre=(picture.largest_x, picture.largest_y),
            )
        )
    if picture.local_p_value is not None and heat.places and heat.smallest:
        beyond = picture.local_p_value <= heat.smallest
        found.append(describe_worst_place(picture.local_p_value, places=heat.places, beyond=beyond))
    return found


def describe_flag(place: str | None, aspect: str | None) -> list[str]:
    """Return where an image is most unusual, and in which aspect; nothing if neither is known.

    >>> (
    ...     describe_flag("lower left", "in texture"),
    ...     describe_flag("across the top", None),
    ...     describe_flag(None, None),
    ... )
    (['Most unusual at the lower left, in texture.'], ['Most unusual across the top.'], [])
    """
    if place is None:
        return [] if aspect is None else [f"Most unusual {printable(aspect)}."]
    where = place if place.startswith(("across ", "down ", "in ")) else f"at the {place}"
    return [f"Most unusual {printable(where)}{f', {printable(aspect)}' if aspect else ''}."]


def _find_aspect(picture: Picture, metadata: Mapping[str, object]) -> str | None:
    """Return the aspect of the expert that contributes most to the image's score.

    None if this expert leads only by its weight, and its own score is not clearly above the weighted mean of all
    experts. This holds for most images of a model, so it is no information on this image.
    """
    if picture.score is None or picture.expert_score is None or not picture.expert_score > CLEARLY * picture.score:
        return None
    match metadata:
        case {"aspects": {**aspects}} if isinstance(aspect := aspects.get(picture.expert), str) and aspect:
            return aspect
    return None


def describe_class(name: str, probability: float) -> str:
    """Return the class that an image is most like.

    >>> describe_class("shirt", 0.8731)
    'nearest class: shirt (probability 0.87 among the classes)'
    """
    return f"nearest class: {printable(name)} (probability {probability:.2f} among the classes)"


def describe_result(picture: Picture, unit: float) -> Iterator[str]:
    """Yield the figures of a restored image. The unit of error bars is 255 for 8-bit levels, and 1 for labels."""
    if picture.mean_scale is not None and np.isfinite(picture.mean_scale):
        yield f"error bar {words.format_number(picture.mean_scale * unit, 3)}{' levels' if unit != 1 else ''}"
    if picture.psnr is not None:
        before = "" if picture.input_psnr is None else f", {words.format_number(picture.input_psnr)} before"
        yield f"PSNR {words.format_number(picture.psnr)} dB{before}"
    if picture.input_noise is not None and picture.output_noise is not None:
        before, after = (words.format_number(255 * each, 2) for each in (picture.input_noise, picture.output_noise))
        yield f"noise {after} levels, {before} before"
    if picture.dice is not None:
        yield f"Dice {words.format_number(picture.dice, 3)}"
    if picture.disagreement is not None:
        yield f"samples differ on {words.format_percent(picture.disagreement)} of the pixels"


def describe_regions(
    number: int,
    *,
    percent: float | None,
    size: tuple[int | None, int | None],
    centre: tuple[float | None, float | None],
) -> str:
    r"""Return the abnormal regions of an image in one sentence; sizes and places are in pixels of the image.

    >>> describe_regions(2, percent=3.41, size=(61, 40), centre=(150.2, 64.9))
    '2 abnormal regions cover 3.4\xa0% of the image; the largest is 61 × 40 pixels around x\xa0150,\xa0y\xa065.'
    """
    if not number or percent is None or None in (*size, *centre):
        return "No single region stands out: the anomaly is spread over the image, or is in small specks."
    cover = "covers" if number == 1 else "cover"
    covered = f"{words.plural(number, 'abnormal region')} {cover} {_share(percent)} of the image"
    which = "it" if number == 1 else "the largest"
    x, y = (f"{value or 0:.0f}" for value in centre)
    return f"{covered}; {which} is {size[0]} × {size[1]} pixels around x{_NBSP}{x},{_NBSP}y{_NBSP}{y}."


def describe_worst_place(share: float, *, places: int, beyond: bool) -> str:
    """Return how unusual the most unusual place of an image is.

    >>> describe_worst_place(0.0004, places=6144, beyond=False)
    'Its worst place is as unusual as one place in 2,500 of good images.'
    """
    if beyond:
        return f"Its worst place is more unusual than all {places:,} places of good images."
    return f"Its worst place is as unusual as one place in {words.round_count(1 / share)} of good images."


# Of heat maps.


def describe_colours(level: float, places: int | None, smallest: float | None, speck_percent: float) -> list[str]:
    """Return the meaning of the colours and outlines of heat maps, in sentences.

    Args:
        level: Share of good images' places below which a region is outlined.
        places: Number of places of good images behind the colours; None if there are only four quantiles.
        smallest: The smallest share that the places can show.
        speck_percent: Regions smaller than this, in % of the image, are left out.
    """
    reach = smallest or 1e-3
    steps = [("gold where one place in 1,000 of good images is as unusual", 1e-3), ("red where one in 10,000 is", 1e-4)]
    meant = [text for text, share in steps if share >= reach]
    if places:
        darkest = "deep red" if reach <= 1e-4 else "red"
        ending = "is" if meant else "is as unusual"
        meant.append(f"{darkest} where none of the {places:,} places of the calibration images {ending}")
    else:
        meant.append("red far beyond that")
    outlined = (
        "White outlines enclose regions that are as unusual as at most one place in "
        f"{words.round_count(1 / level)} of good images; "
        f"specks below {_share(speck_percent)} of the image are left out."
    )
    return [f"{', '.join(meant).capitalize()}.", outlined]


def _share(percent_value: float) -> str:
    return words.format_percent(percent_value / 100)


# Of the model.


def warn_of_scores(metadata: Mapping[str, object], claim: RateClaim | None = None) -> list[str]:
    """Return the cautions to read before the figures of an anomaly model, in sentences."""
    if metadata.get("adversarial") is None:
        return []
    counted = "The promised false-alarm rate was counted on held-out images, and holds for images like them."
    if claim is not None and not claim.is_proved:
        counted = "The threshold was counted on out-of-fold scores of images like the training images."
    return [
        "This model prefers sharp images to faithful ones: training also rewarded reconstructions and samples that "
        "look real, so their details may be made up. Its ELBO is the plain bound, but training maximised more than "
        "this bound: do not compare it with that of other models. " + counted
    ]


class NoiseFacts(NamedTuple):
    """Noise of the images of a run, before and after."""

    images: int
    before: float  # median, in 8-bit levels
    after: float


def warn_of_results(metadata: Mapping[str, object]) -> Iterator[str]:
    """Yield the cautions to read before the pictures of a restoration model, in sentences."""
    if metadata.get("adversarial") is not None:
        yield (
            "This model prefers sharp images to faithful ones: training also rewarded results that look real. They "
            "look sharper, and are on average further from the truth. Details may be made up, and the error bars do "
            "not show which: they were measured on held-out images, as the share of pixels within them."
        )
    if metadata.get("task") == "unpaired":
        yield (
            "This model was trained without pairs of a damaged and a clean image. It learned the damage from a folder "
            "of damaged images, and the restoration from clean images that it had damaged itself. The error bars are "
            "those of such images."
        )
