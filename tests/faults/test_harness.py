"""The harness finds the cases at fault, however their process ends, and counts the others."""

import pytest
from harness import Search, families

pytestmark = pytest.mark.faults

FAMILIES = families(["planted_families"])
FAULTS = {
    "raises": [[3, "RuntimeError: in two lines"], [17, "RuntimeError: in two lines"]],
    "crashes": [[5, "SIGABRT"]],
    "hangs": [[9, "hang"]],
    "swells": [[2, "memory"]],
    "sound": [],
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name, server, tmp_path):
    result = Search(server, FAMILIES[name], tmp_path).run(20)
    found = [[number, what.split(" at ")[0]] for number, what in result.faults]
    assert found == FAULTS[name]
    assert result.cases == 20
    odd = sum(number % 2 for number, _ in found)
    assert result.outcomes == {"skipped": 10 - odd, "sound": 10 - len(found) + odd}
