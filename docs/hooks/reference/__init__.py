"""The generated pages of the site: each is a function of the code that it describes, so it cannot be out of date."""

from pathlib import Path

from reference import changelog, cli, metrics, models, python, store, suite, tasks


def pages(root: Path) -> dict[str, str]:
    """Return the Markdown of every generated page by its path below docs/.

    Args:
        root: the repository.
    """
    return {
        "reference/suite.md": suite.page(),
        "reference/cli.md": cli.page(),
        "reference/models.md": models.page(),
        "reference/tasks.md": tasks.page(),
        "reference/metrics.md": metrics.page(),
        "reference/store.md": store.page(),
        "reference/python.md": python.page(),
        "changelog.md": changelog.page(root),
    }
