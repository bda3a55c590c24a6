"""Reference of the suite file, from the schema that checks it."""

import os
from pathlib import Path

from ipsrec_bench.data.datasets import Entry, known_datasets
from ipsrec_bench.settings import Settings
from ipsrec_bench.suite import schema
from reference.markdown import code, description, sentence, table
from reference.settings import Setting, described, parts_of

SECTIONS: dict[type[Settings], tuple[str, str]] = {
    schema.Suite: ("suite", "Top level"),
    schema.Protocol: ("protocol", "`[protocol]`"),
    schema.Filter: ("filter", "Filters"),
    schema.Bounds: ("bounds", "Bounds of a filter"),
    schema.Controls: ("controls", "`[controls]`"),
    schema.Training: ("training", "`[training]`"),
    schema.Statistics: ("statistics", "`[statistics]`"),
    schema.TableSource: ("table", '`[datasets.NAME]` with `source = "table"`'),
    schema.ItemTable: ("items", "Item table"),
    schema.ProviderColumn: ("column", "Another column as provider"),
    schema.Duplicates: ("duplicates", "Duplicates"),
    schema.SyntheticSource: ("synthetic", '`[datasets.NAME]` with `source = "synthetic"`'),
    schema.Tune: ("tune", "`[tune]`"),
    schema.Range: ("range", "Search ranges"),
}
"""The tables of a suite, in the order of the page, with anchor and heading."""
_INTRODUCTION = """\
# Suite file

A suite is a TOML file that names datasets, models, variants, seeds and the protocol under which they are compared. This
page lists every key. It is generated from the schema that checks suites.

`ipsrec-bench validate SUITE` checks a suite without running it. An error names the file, the line, the key, what was
found and what is allowed. Unknown keys are errors. `--set key=value` overrides a key for one command, for example
`--set training.epochs=5`.

```toml
title = "Does the provider help?"
seeds = [1, 2, 3]
datasets = ["positive-control"]

[models.sasrec]
embedding_size = 32

[models.ipsrec-s]
embedding_size = 32
variants."w/o CL" = { lambda = 0 }

[training]
epochs = 20
```
"""
_DATASETS = """\
## `[datasets.NAME]` {#datasets}

`datasets` is a list of known names, or one table for each dataset. The table of a known dataset may be empty; its keys
override what is known. Any other dataset says where its interactions are: `source = "table"` (the default)
reads [a file](#table), `source = "synthetic"` draws from [the embedded generator](#synthetic).

These datasets are known. A name with braces is a pattern: `amazon-{category}` includes `amazon-Beauty`.
"""
_MODELS = """\
## `[models.NAME]` {#models}

One table for each model. `NAME` is a model of the [registry](models.md), an entry point of an installed package, or any
name if the table has `type`. Beside the keys below, a table takes the [settings of its model](models.md).

`type`{ #models.type }
:   The model: its name in the registry, or `module:Class` for a class of your own.

    text · default `NAME`
    {: .facts }

`training`{ #models.training }
:   Training settings of this model alone; they override [`[training]`](#training).

    table
    {: .facts }

`tasks`{ #models.tasks }
:   Further [training tasks](tasks.md) of a model that is trained by gradients: a table for each, by its name or as
    `module:Class`, with its settings and its `weight` in the loss, above 0. They add to the model's own tasks.

    table · default `{}`
    {: .facts }

`variants`{ #models.variants }
:   Further rows of the tables: a table for each variant, by the variant's name, with the model settings that differ
    and, if needed, a `training` table. The `tasks` of a variant replace those of its model.

    table
    {: .facts }
"""


def documented() -> set[type[Settings]]:
    """Return the classes of all tables that a suite can hold."""
    roots = (schema.Suite, schema.TableSource, schema.SyntheticSource)
    return {*roots}.union(*map(parts_of, roots))


def keys(settings: type[Settings]) -> list[Setting]:
    """Return the keys of a table of the suite."""
    return list(described(settings, _link))


def anchor(settings: type[Settings], key: str) -> str:
    """Return the anchor of a key on this page."""
    return f"{SECTIONS[settings][0]}.{key}"


def page() -> str:
    """Return the page."""
    sections = [_section(settings) for settings in SECTIONS]
    place = list(SECTIONS).index(schema.TableSource)
    return "\n\n".join([_INTRODUCTION, *sections[:place], _datasets(), *sections[place:-2], _MODELS, *sections[-2:]])


def _section(settings: type[Settings]) -> str:
    section, heading = SECTIONS[settings]
    entries = [
        f"### {code(f'{section}.{one.key}' if settings is not schema.Suite else one.key)}"
        f" {{#{anchor(settings, one.key)}}}\n\n{one.said}"
        for one in keys(settings)
    ]
    return "\n\n".join([f"## {heading} {{#{section}}}", description(settings), *entries])


def _link(settings: type[Settings]) -> str:
    section, heading = SECTIONS[settings]
    return f"[{heading}](#{section})"


def _datasets() -> str:
    """Return the section on datasets that a suite may name without describing them."""
    entries = known_datasets(Path(os.devnull)).entries  # no entries of the machine that builds the site
    rows = [(code(name), f"{entry.title}. {_origin(entry)}") for name, entry in entries.items()]
    return f"{_DATASETS}\n{table(('Name', 'What it is, and how to get it'), rows)}"


def _origin(entry: Entry) -> str:
    if entry.embedded:
        return "Embedded."
    how = f"Download: {code('ipsrec-bench data download')}" if entry.downloads else sentence(entry.obtain).rstrip(".")
    return f"{how} ([homepage]({entry.homepage}))."
