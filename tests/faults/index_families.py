"""Damages files of an index, which must then be refused or give the same answers."""

import materials
from harness import Family
from mutations import choose, damaged, damaged_json

from align_keras.errors import InputError
from align_keras.search.image_index import ImageIndex
from align_keras.search.image_search import ImageSearch, Query


class Indexes(Family):
    """One file of a finished index is damaged or missing."""

    name, share, batch = "index", 0.05, 20

    def prepare(self, folder):
        self.folder = folder
        self.sound = materials.image_index(folder.parent)
        self.files = materials.files_of(self.sound)
        self.model = materials.model(folder.parent)
        self.answers = self.ask(self.sound)

    def make_case(self, rng):
        name, data = choose(rng, self.files)
        if rng.uniform() < 0.03:
            return name, None
        is_json = name.endswith(".json")
        return name, damaged_json(data.decode(), rng) if is_json else damaged(data, rng)

    def ask(self, folder):
        """Returns all output of an index: answers, names and thumbnails."""
        index = ImageIndex(folder)
        search = ImageSearch(self.model, index)
        found = search.find(Query("a red ring"), len(index))
        labels = [(index.label(place), index.thumbnail(place)) for place in range(len(index))]
        return found, labels

    def run(self, cases):
        return list(map(self.run_one, cases))

    def run_one(self, case):
        copy = materials.with_file(self.sound, self.folder, *case)
        try:
            found = self.ask(copy)
        except (InputError, OSError) as error:
            assert "\n" not in str(error)
            return "refused"
        if repr(found) == repr(self.answers):
            return "sound"
        # The index opens and gives other answers, so its checksums must find the damage.
        materials.check_reported(copy, case[0])
        return "refused"


FAMILIES = (Indexes(),)
