import json

import pytest
from experiments import PRETRAINING

from align_keras.data import records
from align_keras.runs import tuning_length

SETTINGS = PRETRAINING["finetune_flickr30k"]


@pytest.mark.parametrize(
    ("pairs", "batch_size", "steps"),
    [
        # The paper's values for Flickr30K, and within about 1 % for COCO.
        (145_000, 2_048, 3_000),
        (566_747, 2_048, 5_931),
        # As many epochs as for Flickr30K, in smaller batches.
        (10_000, 512, 828),
        (1_000, 32, 1_324),
        (120, 16, 318),
        (3, 2, 64),
    ],
)
def test_steps_and_batch_suit_the_number_of_pairs(pairs, batch_size, steps):
    assert tuning_length.length_for(pairs) == tuning_length.Length(batch_size, steps)


def test_what_is_given_stays():
    assert tuning_length.length_for(10_000, 100).steps == 4_237
    given = ("batch_size", "steps")
    assert tuning_length.with_length(SETTINGS, given) == (SETTINGS, "")


def test_the_choice_is_said_and_a_run_keeps_it(scene_shards, tmp_path):
    settings = SETTINGS.replace(
        train_data=",".join(scene_shards[0]), workdir=str(tmp_path), log_every=5
    )
    chosen, line = tuning_length.with_length(settings, {"log_every"})
    assert (chosen.run.batch_size, chosen.run.steps) == (16, 318)
    assert (chosen.run.eval_every, chosen.run.log_every) == (53, 5)
    assert line == (
        "<batch_size>=16 and <steps>=318, chosen for 120 training pairs; the paper uses 2,048 "
        "pairs per step and 3,000 steps for Flickr30K's 145,000"
    )
    (tmp_path / "settings.json").write_text(chosen.as_json())
    # The values are kept although there are fewer pairs now, which the run will refuse.
    fewer = settings.replace(train_data=scene_shards[0][0])
    again, line = tuning_length.with_length(fewer, {"log_every"})
    assert (again.run.batch_size, again.run.steps, line) == (16, 318, "")
    (tmp_path / "settings.json").write_text(json.dumps(["no settings"]))
    assert tuning_length.with_length(fewer, {"steps"})[0].run.batch_size == 8


def test_captions_of_an_image_count(scene_shards):
    shards = scene_shards[0]
    assert tuning_length.count_pairs(",".join(shards)) == sum(map(records.count_records, shards))
