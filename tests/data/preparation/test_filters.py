import collections
import random

import pytest

from align_keras.data.preparation import filters
from align_keras.data.preparation.counting import WholeSetCounts
from align_keras.data.preparation.languages import language_detector
from align_keras.errors import InputError

PAPER = filters.Rules()


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog, on the BEACH!", ["a", "dog", "on", "the", "beach"]),
        (
            "well-known “children's” book | £5.99 | Shop™",
            ["well-known", "children's", "book", "5.99", "shop"],
        ),
        (" \t…  -- ", []),
        ("naïve\u00a0Café", ["naïve", "café"]),
        ("IMG_0042.jpg", ["img_0042.jpg"]),
    ],
)
def test_unigrams_are_parts_between_white_space(caption, words):
    assert filters.unigrams(caption) == words


def test_ngrams_are_counted_as_often_as_they_occur():
    assert filters.ngrams(["a", "b", "a", "b"]) == ["a", "b", "a", "b", "a b", "b a", "a b"]
    assert filters.ngrams([]) == []


def test_a_pair_counts_under_the_first_rule_that_it_breaks():
    everything = filters.Counts(images_of_caption=11, captions_of_image=1_001, rare_ngram=True)

    def broken(words, counts=everything, **options):
        return filters.broken_text_rule(words, counts, PAPER, **options)

    assert broken(1, unsafe=True) == "unsafe"
    assert broken(2) == "few_words"
    assert broken(21) == "many_words"
    assert broken(3) == "shared_caption"
    assert broken(3, filters.Counts(10, 1_001, True)) == "rare_words"
    assert broken(3, filters.Counts(10, 1_001, False)) == "crowded_image"
    assert broken(20, filters.Counts(10, 1_000, False)) is None
    assert next(iter(filters.RULES)) == "unusable_row"
    nothing_rare = filters.Counts(images_of_caption=11, captions_of_image=1_001)
    assert filters.broken_text_rule(0, nothing_rare, filters.NO_RULES) is None


@pytest.mark.parametrize(
    ("width", "height", "rule"),
    [
        (200, 400, "small_image"),
        (201, 400, None),
        (603, 201, "elongated_image"),
        (201, 602, None),
        (10, 1_000, "small_image"),
    ],
)
def test_sizes_are_judged_at_the_papers_thresholds(width, height, rule):
    assert filters.broken_size_rule(width, height, PAPER) == rule
    assert filters.broken_size_rule(width, height, filters.NO_RULES) is None


@pytest.mark.parametrize(
    ("value", "unsafe"),
    [
        (None, False),
        (0.5, False),
        (0.51, True),
        ("0.9", True),
        ("NSFW", True),
        ("UNLIKELY", False),
        ("UNSURE", False),
        (True, True),
        (False, False),
        ("", False),
        ("true", True),
    ],
)
def test_fields_that_mark_unsafe_content(value, unsafe):
    assert filters.is_unsafe(value, PAPER) is unsafe


def random_pairs(count):
    rng = random.Random(0)
    vocabulary = [f"w{index}" for index in range(60)]
    return [
        (
            row,
            caption,
            f"image {rng.randrange(count // 3)}",
            rng.choices(vocabulary, k=rng.randrange(4)),
        )
        for row in range(count)
        for caption in range(rng.randrange(3))
    ]


@pytest.mark.parametrize("most", [0, 1, 60, 400, 1_000, 100_000])
def test_counts_equal_brute_force(most, tmp_path):
    pairs = random_pairs(600)
    rules = filters.Rules(max_images_per_caption=3, max_captions_per_image=4, frequent_ngrams=most)
    ngrams = collections.Counter()
    images, texts = collections.defaultdict(set), collections.defaultdict(set)
    for _, _, image, words in pairs:
        ngrams.update(filters.ngrams(words))
        images[" ".join(words)].add(image)
        texts[image].add(" ".join(words))
    order = sorted(ngrams, key=lambda ngram: (-ngrams[ngram], filters.tie_break(ngram)))
    rare = set(order[most:])
    expected = []
    for row, caption, image, words in pairs:
        shared, crowded = len(images[" ".join(words)]), len(texts[image])
        counts = filters.Counts(
            shared if shared > 3 else 0,
            crowded if crowded > 4 else 0,
            not rare.isdisjoint(filters.ngrams(words)),
        )
        if counts != filters.Counts():
            expected.append((row, caption, counts))
    with WholeSetCounts(tmp_path) as counted:
        counted.add((0, *pair) for pair in pairs[:100])
        counted.add((1, *pair) for pair in pairs[100:])
        counted.finish(rules)
        assert [*counted.of_part(0), *counted.of_part(1)] == expected


def test_the_cutoff_takes_the_most_frequent_and_room_for_some_of_the_next():
    histogram = {5: 2, 3: 4, 1: 10}
    assert filters.cutoff(histogram, 0) == filters.Cutoff(5, 0)
    assert filters.cutoff(histogram, 2) == filters.Cutoff(3, 0)
    assert filters.cutoff(histogram, 7) == filters.Cutoff(1, 1)
    assert filters.cutoff(histogram, 16) is None


@pytest.mark.parametrize(
    ("caption", "english"),
    [
        ("a man walks his dog along the beach", True),
        ("Nike Men Red Running Shoes", True),
        ("ein Mann geht mit seinem Hund am Strand spazieren", False),
        ("un homme promène son chien sur la plage", False),
        ("собака гуляет по пляжу", False),
        ("IMG_0042.jpg", True),
    ],
)
def test_captions_clearly_in_another_language_are_reported(caption, english):
    assert language_detector("en")(caption) is english


@pytest.mark.parametrize(
    ("options", "setting"),
    [({"min_words": 9, "max_words": 4}, "min_words"), ({"frequent_ngrams": -1}, "frequent_ngrams")],
)
def test_thresholds_that_leave_nothing_are_refused(options, setting):
    with pytest.raises(InputError) as caught:
        filters.Rules(**options)
    assert caught.value.setting == setting


def test_unknown_languages_are_refused():
    with pytest.raises(InputError, match="'xx' must be one of ar bg"):
        language_detector("xx")
