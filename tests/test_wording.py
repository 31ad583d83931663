import pytest

from align_keras import wording


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (1, "shard", "1 shard"),
        (0, "image", "0 images"),
        (2_000, "class", "2,000 classes"),
        (1, "class", "1 class"),
        (2, "held-out pair", "2 held-out pairs"),
    ],
)
def test_numbers_of_things(count, noun, expected):
    assert wording.counted(count, noun) == expected


@pytest.mark.parametrize(
    ("count", "seconds", "expected"),
    [
        (5, 12, "0.417 images/s"),
        (5, 1.2, "4.17 images/s"),
        (50, 1.2, "41.7 images/s"),
        (500, 1.2, "417 images/s"),
        (50_000, 1.2, "41,667 images/s"),
        (0, 1.2, "not timed"),
        (5, 0, "not timed"),
    ],
)
def test_speeds_have_three_digits(count, seconds, expected):
    assert wording.rate(count, seconds, "images") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adam", "adamw"),
        ("AdamW", "adamw"),
        ("batch-size", "batch_size"),
        (" batch_sise", "batch_size"),
        ("zebra", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_what_was_meant(name, expected):
    names = ["lamb", "adamw", "batch_size"]
    assert wording.nearest(name, names) == expected
    assert wording.meant(name, names) == (f"did you mean {expected}?" if expected else "")


def test_another_word_of_few_letters_was_not_meant():
    assert wording.choose("gpu", ["tpu"]) == "choose one of tpu"
    assert (
        wording.choose("tpus", iter(["gpu", "tpu"])) == "did you mean tpu? choose one of gpu, tpu"
    )


def test_a_long_list_is_shortened():
    names = [f"n{number}" for number in range(1_013)]
    assert wording.listed(names[:12]) == ", ".join(names[:12])
    assert wording.listed(names) == f"{', '.join(names[:12])} and 1,001 more"
    assert wording.listed(names, 2) == "n0, n1 and 1,011 more"
    assert wording.listed([]) == ""


@pytest.mark.parametrize(
    ("noun", "several"),
    [("shard", "shards"), ("class", "classes"), ("batch", "batches"), ("epoch", "epochs")],
)
def test_plurals(noun, several):
    assert wording.plural(noun) == several
