import json

import numpy as np
import pytest

from align_keras.errors import InputError, MissingInputError
from align_keras.evaluation.tasks import crisscrossed
from align_keras.evaluation.tasks.crisscrossed import Crisscrossed
from align_keras.evaluation.tasks.evaluate import evaluate


@pytest.fixture
def judged(scene_photos, tmp_path):
    """Settings for judgements about 15 scenes and 30 captions."""
    rng = np.random.default_rng(0)
    images, captions = np.arange(15), np.arange(30)
    annotations = [
        {"id": int(own), "image_id": int(own) // 2, "caption": f"a red ring {own}"}
        for own in captions
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"annotations": annotations}))
    (tmp_path / "val2014").mkdir()
    sources = sorted((scene_photos / "test").rglob("*.jpg"))
    for own, source in zip(images, sources, strict=True):
        target = tmp_path / "val2014" / f"COCO_val2014_{own:012d}.jpg"
        target.write_bytes(source.read_bytes())
    image = "COCO_val2014_{:012d}.jpg".format
    caption = "COCO_val2014:sentid:{}".format
    for kind, header, first, second in (
        ("sts", "caption1,caption2", (caption, captions), (caption, captions)),
        ("sis", "image1,image2", (image, images), (image, images)),
        ("sits", "caption,image", (caption, captions), (image, images)),
    ):
        lines = [f"{header},agg_score,sampling_method"]
        for own in first[1]:
            for other in rng.choice(second[1], 3, replace=False):
                score = rng.uniform(0, 5)
                lines.append(f"{first[0](own)},{second[0](other)},{score:.2f},x")
        (tmp_path / f"{kind}_test.csv").write_text("\n".join(lines) + "\n")
    options = {"captions": str(tmp_path / "captions.json"), "images": str(tmp_path / "val2014")}
    return {"data": str(tmp_path), "bootstrap_samples": 20, **options}


def test_what_is_there_is_scored(tiny_model, judged, tmp_path, capsys):
    whole = evaluate(tiny_model, Crisscrossed(**judged), tmp_path).metrics
    for kind in ("sts", "sis", "sits"):
        assert -1 <= whole[f"{kind}_spearman"] <= 1
        assert whole[f"{kind}_spearman_deviation"] > 0
    for way in ("i2t", "t2i", "t2t", "i2i"):
        assert 0 <= whole[f"{way}_recall_at_1"] <= whole[f"{way}_recall_at_10"] <= 1
    assert whole["sits_spearman_pairs"] == 90
    written = json.loads((tmp_path / "crisscrossed.json").read_text())["metrics"]
    assert written["i2t_recall@1"] == whole["i2t_recall_at_1"]
    capsys.readouterr()
    texts = evaluate(tiny_model, Crisscrossed(**{**judged, "images": ""}), tmp_path).metrics
    assert texts.keys() == {name for name in whole if name.startswith(("sts", "t2t"))}
    assert all(texts[name] == pytest.approx(whole[name], abs=1e-6) for name in texts)
    assert "no images: SIS, SITS" in capsys.readouterr().out


def test_unusable_data_name_their_setting(judged, tmp_path):
    with pytest.raises(InputError, match="30 captions and 15 images of COCO") as caught:
        Crisscrossed(data=judged["data"]).open()
    assert caught.value.setting == "captions"
    with pytest.raises(InputError, match="give the folder of sts_test.csv") as caught:
        Crisscrossed().open()
    assert caught.value.setting == "data"
    with pytest.raises(MissingInputError) as caught:
        Crisscrossed(**{**judged, "images": str(tmp_path / "none")}).open()
    assert (caught.value.setting, caught.value.place.file) == ("images", str(tmp_path / "none"))
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match="neither COCO's") as caught:
        Crisscrossed(**{**judged, "captions": str(tmp_path / "other.json")}).open()
    assert caught.value.setting == "captions"


@pytest.mark.parametrize(
    ("caption", "problem"), [(7, "caption is a number"), (" ", "empty caption")]
)
def test_a_caption_that_is_no_text_is_named(caption, problem, tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"annotations": [{"id": 3, "image_id": 1, "caption": caption}]}))
    with pytest.raises(InputError, match=f"captions.json caption 3: {problem}"):
        crisscrossed.read_coco_captions(path)


def test_other_files_beside_cocos_images_are_passed_over(tmp_path):
    image = "COCO_val2014_000000000042.jpg"
    for name in (image, f"._{image}", "photo-7.jpg", "x.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert crisscrossed.find_coco_images(tmp_path) == {42: tmp_path / image}


def test_captions_of_karpathys_file_are_read(tmp_path):
    rows = [{"cocoid": 5, "sentences": [{"sentid": 7, "raw": " a ring\n"}]}]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": rows}))
    found = crisscrossed.read_coco_captions(tmp_path / "dataset_coco.json")
    assert found == {7: (5, "a ring")}
