"""A stand-in for the modules of Weights & Biases and Trackio that records what it receives."""

import types


class TrackerModule(types.ModuleType):
    """A module to put into ``sys.modules``."""

    def __init__(self, name):
        super().__init__(name)
        self.given, self.logged, self.ended = {}, [], []
        self.fails_at = None

    # === wandb and trackio ===

    def init(self, project, **options):
        self.given = {"project": project, **options}
        self.id = options.get("id") or options["name"]
        return self

    def Settings(self, **options):  # noqa: N802
        return options

    def define_metric(self, name, step_metric):
        self.step_metric = step_metric

    def log(self, metrics, step=None):
        if len(self.logged) == self.fails_at:
            raise ConnectionError("the server is gone\nand more")
        self.logged.append((metrics.get("step", step), metrics))

    def finish(self, exit_code=None):
        self.ended.append(exit_code)
