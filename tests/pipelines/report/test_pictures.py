"""What a report says of its pictures: legend, sentences, and the good images closest to each."""

from __future__ import annotations

from pipelines.report.folder import read_gallery
from pipelines.report.pictures import make_legend, pack_gallery


def test_a_good_image_is_in_the_page_once(make) -> None:
    out = make.pictured([["a.png", "b.png", "c.png"], ["b.png", "x/a.png", "c.png"]])
    gallery = read_gallery(out / ".kintsugi-run" / "gallery.parquet")
    assert gallery is not None
    data = pack_gallery(gallery, make.heat, out, {})
    assert len(data["good"]) == 4
    first, second = data["pictures"]
    assert [near["thumbnail"] for near in first["near"]] == [0, 1, 2]
    assert [(near["name"], near["thumbnail"]) for near in second["near"]] == [
        ("b.png", 1),
        ("x/a.png", 3),
        ("c.png", 2),
    ]
    assert first["size"] == [64, 48]
    assert first["words"] == [
        "2 abnormal regions cover 13\u00a0% of the image; "
        "the largest is 30 × 20 pixels around x\u00a026,\u00a0y\u00a015.",
        "Its worst place is more unusual than all 50,000 places of good images.",
    ]


def test_a_gallery_of_an_earlier_run_is_read(make) -> None:
    out = make.folder()
    gallery = read_gallery(out / ".kintsugi-run" / "gallery.parquet")
    assert gallery is not None
    picture = pack_gallery(gallery, None, out, {})["pictures"][0]
    assert (picture["outlines"], picture["words"], picture["near"]) == (None, [], [])


def test_the_legend_marks_what_the_calibration_can_tell(make) -> None:
    full = make_legend(make.heat)
    assert [mark.label for mark in full.marks] == ["1 in 100", "1 in 1,000", "1 in 10,000"]
    assert "red where one in 10,000 is, deep red where none of the 50,000 places" in full.sentences[0]
    few = make_legend(
        make.heat.model_copy(update={"places": 3456, "smallest": 1 / 3457, "colours": make.heat.colours[:2]})
    )
    assert [mark.label for mark in few.marks] == ["1 in 100", "1 in 1,000", "1 in 3,500"]
    assert few.sentences[0].startswith("Gold where one place in 1,000 of good images is as unusual, red where none of")
    tiny = make_legend(
        make.heat.model_copy(update={"level": 0.01, "places": 99, "smallest": 0.01, "colours": make.heat.colours[:1]})
    )
    assert tiny.sentences[0] == "Red where none of the 99 places of the calibration images is as unusual."
    assert "one place in 100 of good images" in tiny.sentences[1]
    old = make_legend(
        make.heat.model_copy(update={"places": None, "smallest": None, "colours": ((0.01, 0.0), (0.001, 0.2))})
    )
    assert old.sentences[0] == "Gold where one place in 1,000 of good images is as unusual, red far beyond that."
