"""What a model's score means, and what it is made of, in words for people."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.base.percentages import percent
from pipelines.models.model_file import Metadata
from vaecore.experts import EXPERTS
from vaecore.experts.combination import EXPECTED

_VAE_SUMMARIES = {"linear_vae": "a linear VAE of the whole image", "vae": "the VAE of the whole image"}
_LEAST_SHOWN = 0.01
ALONE, WEIGHT = "synthetic_auroc_", "weight_"  # before an expert's name, in the figures of a training


def explain_score(metadata: Metadata, figures: Mapping[str, float]) -> list[str]:
    """What the score is made of, where that is more than the bound."""
    if not metadata.experts:
        return []
    own, *others = (name for name, _ in metadata.experts)
    summaries = {own: _VAE_SUMMARIES.get(own, own)} | {name: EXPERTS[name].summary for name in others}
    further = ", and minus each further expert's log-density of that place" if others else ""
    return [
        "## What this score means",
        "",
        f"The score is made of terms of the ELBO by place: the VAE's distortion at each place{further}. Each place is "
        "compared with what good images show there. The most unusual places of an image are averaged, over a small and "
        f"a large area, and the larger counts; {percent(EXPECTED)} of what good images like it score is taken off. The "
        "unit is the standard deviation of good images, whose mean is 0.",
        "",
        "Standardised and pooled, the score is no longer the ELBO itself. The bound stays beside it, in the columns "
        "`elbo`, `rate` and `distortion`.",
        "",
        *(_list_experts(metadata, summaries, figures) if others else ()),
    ]


def _list_experts(metadata: Metadata, summaries: Mapping[str, str], figures: Mapping[str, float]) -> list[str]:
    return [
        "| expert | what it is | captions say: most unusual ... | weight | finds synthetic defects |",
        "|---|---|---|---|---|",
        *(
            f"| `{name}` | {summaries[name]} | {metadata.aspects.get(name, '')} | {_weight(weight)} | "
            f"{_pairs(figures.get(f'{ALONE}{name}'))} |"
            for name, weight in metadata.experts
        ),
        "",
        "The score is the weighted mean of the experts' scores. Synthetic defects on good images set the weights, by "
        "the share of pairs in which a damaged image scores above a good one (guessing: 50 %); no image with a real "
        "defect took part. The column `expert` names the expert that contributes most to a score: weight times its own "
        "score. A caption says in what an image is unusual only where that expert's own score is clearly above the "
        "weighted mean.",
        "",
    ]


def _weight(weight: float) -> str:
    return percent(weight) if weight >= _LEAST_SHOWN else f"below {percent(_LEAST_SHOWN)}"


def _pairs(separation: float | None) -> str:
    return "" if separation is None else f"{percent(separation)} of pairs"
