"""Damaged data of every kind: no crash, no hang, bounded memory, and every item counted."""

import pytest
from harness import CASES, OUTCOMES, SEED, Search, families
from tables import add_row

pytestmark = pytest.mark.faults

FAMILIES = families()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the data that all families damage; the first process that needs it makes it."""
    return tmp_path_factory.mktemp("fuzzing")


def test_the_shares_of_the_families_are_all_cases():
    assert sum(family.share for family in FAMILIES.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_damage_is_counted_or_refused(name, server, folder, record_property):
    family = FAMILIES[name]
    result = Search(server, family, folder).run(round(family.share * CASES))
    add_row(
        record_property,
        "damaged data",
        family=name,
        cases=result.cases,
        **{outcome: result.outcomes[outcome] for outcome in OUTCOMES},
        faults=len(result.faults),
        seconds=round(result.seconds),
        **{"peak MiB": round(result.peak)},
        seed=SEED,
    )
    faults = [f"{name}, seed {SEED}, case {number}: {what}" for number, what in result.faults]
    assert not faults, "\n" + "\n".join(faults)
    assert sum(result.outcomes.values()) == result.cases == round(family.share * CASES)
