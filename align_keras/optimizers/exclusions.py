"""Which weights get decay and layer adaptation."""

import re


def is_matrix(variable, exclusions):
    """Whether a variable has two dimensions or more, and no exclusion matches its path."""
    return len(variable.shape) >= 2 and not any(re.search(e, variable.path) for e in exclusions)
