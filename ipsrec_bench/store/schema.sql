-- The result store. Every table, column, view and macro is described by its comment, so that any DuckDB client can show
-- it (duckdb_tables(), duckdb_columns(), duckdb_views(), duckdb_functions()); the site's reference is made of the
-- comments. A store keeps those that it was made with: another wording needs no other version of the schema. A migration
-- copies the columns of an older store by name; a column that is added here must be nullable or have a default, which
-- says what holds where an older version recorded nothing.

CREATE TABLE store (version INTEGER NOT NULL, created TIMESTAMP NOT NULL);
COMMENT ON TABLE store IS 'Version of the schema and creation time of the file; one row.';
COMMENT ON COLUMN store.version IS 'version of this schema';
COMMENT ON COLUMN store.created IS 'when the file was made, UTC';

CREATE TABLE datasets (
    fingerprint VARCHAR PRIMARY KEY,
    name VARCHAR NOT NULL,
    users BIGINT NOT NULL,
    items BIGINT NOT NULL,
    providers BIGINT NOT NULL,
    actions BIGINT NOT NULL,
    known_provider_actions BIGINT NOT NULL,
    mean_length DOUBLE NOT NULL,
    repeat_share DOUBLE,
    tie_share DOUBLE,
    stickiness DOUBLE,
    shuffled_stickiness DOUBLE,
    stand_in BOOLEAN NOT NULL DEFAULT false,
    scale DOUBLE NOT NULL DEFAULT 1,
    filter VARCHAR NOT NULL DEFAULT 'not known'
);
COMMENT ON TABLE datasets IS 'Prepared datasets that cells were trained on; one row per dataset.';
COMMENT ON COLUMN datasets.fingerprint IS 'sha256 of the prepared sequences';
COMMENT ON COLUMN datasets.name IS 'name of the dataset in the first suite that used it';
COMMENT ON COLUMN datasets.users IS 'number of users';
COMMENT ON COLUMN datasets.items IS 'number of items';
COMMENT ON COLUMN datasets.providers IS 'number of known providers';
COMMENT ON COLUMN datasets.actions IS 'number of interactions';
COMMENT ON COLUMN datasets.known_provider_actions IS 'interactions whose provider is known';
COMMENT ON COLUMN datasets.mean_length IS 'mean number of interactions per user';
COMMENT ON COLUMN datasets.repeat_share IS 'share of interactions, except each user''s first, with an item that the user had before';
COMMENT ON COLUMN datasets.tie_share IS 'share of neighbouring interactions of one user with equal times, whose order is that of the source';
COMMENT ON COLUMN datasets.stickiness IS 'share of neighbouring interactions with different items and known providers that have the same provider';
COMMENT ON COLUMN datasets.shuffled_stickiness IS 'stickiness expected after a random shuffle of each user''s order';
COMMENT ON COLUMN datasets.stand_in IS 'whether the data are made up in the shape of a published dataset';
COMMENT ON COLUMN datasets.scale IS 'share of the users that were read, according to the first run with these sequences; run_datasets has it for each run';
COMMENT ON COLUMN datasets.filter IS 'which users and items were kept, according to the first run with these sequences; run_datasets has it for each run';

CREATE TABLE splits (
    fingerprint VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    test_users BIGINT NOT NULL,
    valid_users BIGINT NOT NULL,
    tied_targets DOUBLE,
    leaked_targets DOUBLE,
    repeated_targets DOUBLE,
    unseen_targets DOUBLE,
    unknown_users BIGINT,
    PRIMARY KEY (fingerprint, split)
);
COMMENT ON TABLE splits IS 'Counts and shares of the held-out targets; one row per dataset and split. Shares are of the test targets, of which a user has several under target = all; NULL where an older version did not record them.';
COMMENT ON COLUMN splits.fingerprint IS 'the dataset, as in datasets';
COMMENT ON COLUMN splits."split" IS 'name of the split, with its shares where it has any';
COMMENT ON COLUMN splits.test_users IS 'users with a test target';
COMMENT ON COLUMN splits.valid_users IS 'users with a validation target';
COMMENT ON COLUMN splits.tied_targets IS 'share with the same time as the interaction before the target';
COMMENT ON COLUMN splits.leaked_targets IS 'share older than the newest training interaction';
COMMENT ON COLUMN splits.repeated_targets IS 'share with an item of the user''s history';
COMMENT ON COLUMN splits.unseen_targets IS 'share with an item that no training interaction has';
COMMENT ON COLUMN splits.unknown_users IS 'users with a test target who have no training interaction';

CREATE TABLE environments (
    environment VARCHAR PRIMARY KEY,
    package VARCHAR NOT NULL,
    python VARCHAR NOT NULL,
    torch VARCHAR NOT NULL,
    numpy VARCHAR NOT NULL,
    duckdb VARCHAR NOT NULL,
    platform VARCHAR NOT NULL,
    processor VARCHAR NOT NULL,
    cores INTEGER NOT NULL,
    threads INTEGER NOT NULL,
    device VARCHAR NOT NULL,
    revision VARCHAR NOT NULL DEFAULT 'not known'
);
COMMENT ON TABLE environments IS 'Machines and versions with which cells ran; one row per environment.';
COMMENT ON COLUMN environments.environment IS 'digest of the other columns';
COMMENT ON COLUMN environments.package IS 'version of ipsrec-bench';
COMMENT ON COLUMN environments.python IS 'version of Python';
COMMENT ON COLUMN environments.torch IS 'version of torch';
COMMENT ON COLUMN environments.numpy IS 'version of NumPy';
COMMENT ON COLUMN environments.duckdb IS 'version of DuckDB';
COMMENT ON COLUMN environments.platform IS 'operating system and architecture';
COMMENT ON COLUMN environments.processor IS 'model of the processor';
COMMENT ON COLUMN environments.cores IS 'cores available to the process';
COMMENT ON COLUMN environments.threads IS 'threads that torch used';
COMMENT ON COLUMN environments.device IS 'device of the training, like cpu, and its settings';
COMMENT ON COLUMN environments.revision IS 'git commit of ipsrec-bench, with "+" if files were changed; empty outside a git checkout';

CREATE SEQUENCE cell_numbers;
CREATE TABLE cells (
    cell INTEGER PRIMARY KEY DEFAULT nextval('cell_numbers'),
    key VARCHAR NOT NULL,
    status VARCHAR NOT NULL CHECK (status IN ('complete', 'failed')),
    error VARCHAR,
    fingerprint VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    seed INTEGER NOT NULL,
    settings VARCHAR NOT NULL,
    environment VARCHAR NOT NULL,
    started TIMESTAMP NOT NULL,
    seconds DOUBLE NOT NULL,
    train_seconds DOUBLE,
    peak_memory BIGINT,
    parameters BIGINT,
    stop_metric VARCHAR,
    best_epoch INTEGER,
    best_valid DOUBLE,
    depth INTEGER,
    deterministic BOOLEAN,
    split_name VARCHAR
);
COMMENT ON TABLE cells IS 'Training runs, and ranks imported from elsewhere; one row per key. A complete cell has rows in ranks and, if it was trained by gradients, in epochs and losses; a failed cell has its traceback in error.';
COMMENT ON COLUMN cells.cell IS 'number of the cell in this store';
COMMENT ON COLUMN cells.key IS 'content key: cells with equal keys have equal ranks';
COMMENT ON COLUMN cells.status IS 'complete or failed';
COMMENT ON COLUMN cells.error IS 'traceback of a failed cell, and the last lines of its output';
COMMENT ON COLUMN cells.fingerprint IS 'the dataset, as in datasets';
COMMENT ON COLUMN cells.type IS 'name of the model in the registry, module:Class, or external for imported ranks';
COMMENT ON COLUMN cells.seed IS 'seed of the training';
COMMENT ON COLUMN cells.settings IS 'resolved settings as JSON text: config, training, protocol';
COMMENT ON COLUMN cells.environment IS 'where the cell ran, as in environments';
COMMENT ON COLUMN cells.started IS 'when the cell began, UTC';
COMMENT ON COLUMN cells.seconds IS 'wall-clock time of the cell in seconds: training, validation and ranking';
COMMENT ON COLUMN cells.train_seconds IS 'time of training alone, in seconds';
COMMENT ON COLUMN cells.peak_memory IS 'largest resident size of the process while the cell ran, in bytes';
COMMENT ON COLUMN cells.parameters IS 'number of trainable parameters';
COMMENT ON COLUMN cells.stop_metric IS 'validation metric that chose the best epoch, like mrr@10';
COMMENT ON COLUMN cells.best_epoch IS 'epoch of the main stage with the best stop_metric, from 1';
COMMENT ON COLUMN cells.best_valid IS 'stop_metric on the validation targets at best_epoch';
COMMENT ON COLUMN cells.depth IS 'length of the shortest imported list, where a target that is not listed counts as last; NULL where all ranks are known';
COMMENT ON COLUMN cells.deterministic IS 'whether no seed changes the ranks, so that one cell serves every seed of a suite; NULL where an older version did not record it';
COMMENT ON COLUMN cells.split_name IS 'name of the split of its targets, as targets.split; NULL where an older version did not record it';

CREATE TABLE epochs (
    cell INTEGER NOT NULL,
    stage VARCHAR NOT NULL DEFAULT 'main',
    epoch INTEGER NOT NULL,
    loss DOUBLE NOT NULL,
    valid DOUBLE,
    train_seconds DOUBLE NOT NULL,
    valid_seconds DOUBLE NOT NULL,
    targets BIGINT NOT NULL
);
COMMENT ON TABLE epochs IS 'Learning curves; one row per cell, stage and epoch, in the order of the training. A model that is pretrained has stages before the main one; one that is refit has stages after it. Losses are means over the samples of the epoch.';
COMMENT ON COLUMN epochs.cell IS 'the cell, as in cells';
COMMENT ON COLUMN epochs.stage IS 'stage of the training: main, the name of one before it, or refit and the name of one of a second training on training and validation interactions';
COMMENT ON COLUMN epochs.epoch IS 'number of the epoch in its stage, from 1';
COMMENT ON COLUMN epochs.loss IS 'loss that was minimised: the weighted sum of those in losses';
COMMENT ON COLUMN epochs.valid IS 'stop metric on the validation targets after the epoch; NULL in other stages than main';
COMMENT ON COLUMN epochs.train_seconds IS 'time of training in seconds';
COMMENT ON COLUMN epochs.valid_seconds IS 'time of validation in seconds';
COMMENT ON COLUMN epochs.targets IS 'number of training samples: targets, histories or interactions';

CREATE TABLE losses (
    cell INTEGER NOT NULL,
    stage VARCHAR NOT NULL,
    epoch INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    value DOUBLE NOT NULL
);
COMMENT ON TABLE losses IS 'Losses of the tasks that a model is trained for; one row per cell, stage, epoch and loss. Older versions recorded those of the next item and of the provider contrast only.';
COMMENT ON COLUMN losses.cell IS 'the cell, as in cells';
COMMENT ON COLUMN losses.stage IS 'stage of the training, as in epochs';
COMMENT ON COLUMN losses.epoch IS 'number of the epoch in its stage, as in epochs';
COMMENT ON COLUMN losses.name IS 'name of the task, module:Class, or penalty for terms on the weights alone';
COMMENT ON COLUMN losses.value IS 'mean over the samples of the epoch, before the weight of the task; a penalty is weighted already';

CREATE TYPE held_out AS ENUM ('valid', 'test');
COMMENT ON TYPE held_out IS 'Which held-out interactions are ranked: validation or test.';
CREATE TABLE ranks (
    cell INTEGER NOT NULL,
    split held_out NOT NULL,
    "user" INTEGER NOT NULL,
    higher INTEGER NOT NULL,
    ties INTEGER NOT NULL
);
COMMENT ON TABLE ranks IS 'Ranks of the held-out items; one row per cell, split and user, or several where target = all, in order of time. The view user_ranks adds the rank and the names.';
COMMENT ON COLUMN ranks.cell IS 'the cell, as in cells';
COMMENT ON COLUMN ranks."split" IS 'valid or test';
COMMENT ON COLUMN ranks."user" IS 'number of the user in users.parquet of the prepared dataset';
COMMENT ON COLUMN ranks.higher IS 'items with a higher score than the held-out item';
COMMENT ON COLUMN ranks.ties IS 'other items with the same score';

CREATE TABLE cell_targets (
    cell INTEGER NOT NULL,
    split held_out NOT NULL,
    users INTEGER NOT NULL,
    left_out INTEGER NOT NULL,
    targets VARCHAR NOT NULL,
    candidates VARCHAR NOT NULL
);
COMMENT ON TABLE cell_targets IS 'Which targets and candidates the ranks of a cell are of; one row per cell and split. Cells of older versions have none.';
COMMENT ON COLUMN cell_targets.cell IS 'the cell, as in cells';
COMMENT ON COLUMN cell_targets."split" IS 'valid or test';
COMMENT ON COLUMN cell_targets.users IS 'users that are ranked';
COMMENT ON COLUMN cell_targets.left_out IS 'further users, left out because the mask hides their target, which is in their history';
COMMENT ON COLUMN cell_targets.targets IS 'digest of the dataset, the users and their targets';
COMMENT ON COLUMN cell_targets.candidates IS 'items among which a target is ranked, in words';

CREATE TABLE targets (
    fingerprint VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    "user" INTEGER NOT NULL,
    history INTEGER NOT NULL,
    item_count INTEGER NOT NULL,
    provider_count INTEGER NOT NULL,
    item_seen BOOLEAN NOT NULL,
    provider_seen BOOLEAN NOT NULL,
    candidates INTEGER
);
COMMENT ON TABLE targets IS 'Facts about the test targets, for slices; one row per dataset, split and user, or several where target = all, in order of time.';
COMMENT ON COLUMN targets.fingerprint IS 'the dataset, as in datasets';
COMMENT ON COLUMN targets."split" IS 'name of the split, with its shares where it has any';
COMMENT ON COLUMN targets."user" IS 'number of the user in users.parquet of the prepared dataset';
COMMENT ON COLUMN targets.history IS 'interactions of the user before the target';
COMMENT ON COLUMN targets.item_count IS 'training interactions with the target''s item';
COMMENT ON COLUMN targets.provider_count IS 'training interactions with the target''s provider; -1 where the provider is unknown';
COMMENT ON COLUMN targets.item_seen IS 'whether the user''s history has the target''s item';
COMMENT ON COLUMN targets.provider_seen IS 'whether the user''s history has the target''s provider';
COMMENT ON COLUMN targets.candidates IS 'items that compete with the target if the items of the history are masked; NULL where an older version did not record it';

CREATE SEQUENCE run_numbers;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY DEFAULT nextval('run_numbers'),
    suite VARCHAR NOT NULL,
    settings VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    overrides VARCHAR[] NOT NULL,
    started TIMESTAMP NOT NULL
);
COMMENT ON TABLE runs IS 'Starts of suites; one row per run command.';
COMMENT ON COLUMN runs.run IS 'number of the run in this store';
COMMENT ON COLUMN runs.suite IS 'name of the suite';
COMMENT ON COLUMN runs.settings IS 'the suite with all defaults, as JSON';
COMMENT ON COLUMN runs.text IS 'the suite file as written';
COMMENT ON COLUMN runs.overrides IS 'overrides given with --set, --scale and --stand-in';
COMMENT ON COLUMN runs.started IS 'when the run began, UTC';

CREATE TABLE suites (suite VARCHAR PRIMARY KEY, place VARCHAR NOT NULL);
COMMENT ON TABLE suites IS 'Where the file of each suite was when it was last run or imported for. Older versions did not record it.';
COMMENT ON COLUMN suites.suite IS 'name of the suite';
COMMENT ON COLUMN suites.place IS 'path of the file relative to the folder of the store, so that both can be moved together';

CREATE TABLE run_cells (
    run INTEGER NOT NULL,
    position INTEGER NOT NULL,
    key VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    title VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    seed INTEGER NOT NULL,
    base VARCHAR NOT NULL DEFAULT '',
    control VARCHAR NOT NULL DEFAULT '',
    protocol VARCHAR NOT NULL DEFAULT '',
    tuning VARCHAR NOT NULL DEFAULT '',
    PRIMARY KEY (run, position)
);
COMMENT ON TABLE run_cells IS 'Cells that a run planned, with the names that the suite gives them; runs share cells by key.';
COMMENT ON COLUMN run_cells.run IS 'the run, as in runs';
COMMENT ON COLUMN run_cells."position" IS 'place of the cell in the order of the suite';
COMMENT ON COLUMN run_cells.key IS 'content key, as in cells';
COMMENT ON COLUMN run_cells.dataset IS 'name of the dataset in the suite, with control and protocol where it has them';
COMMENT ON COLUMN run_cells.model IS 'name of the model in the suite';
COMMENT ON COLUMN run_cells.title IS 'name of the model in tables';
COMMENT ON COLUMN run_cells.type IS 'name of the model in the registry, or module:Class';
COMMENT ON COLUMN run_cells.variant IS 'name of the variant; empty for the model itself';
COMMENT ON COLUMN run_cells.seed IS 'seed of the training';
COMMENT ON COLUMN run_cells.base IS 'name of the dataset without control and protocol; empty where it is dataset';
COMMENT ON COLUMN run_cells.control IS 'choice of providers that replaces those of the dataset; empty where none does';
COMMENT ON COLUMN run_cells.protocol IS 'name of the further protocol; empty for the main protocol of the suite';
COMMENT ON COLUMN run_cells.tuning IS 'where the settings are from, such as a search and its trials; empty where an older version did not record it';

CREATE TABLE run_datasets (
    run INTEGER NOT NULL,
    dataset VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    filter VARCHAR NOT NULL,
    scale DOUBLE NOT NULL,
    stand_in BOOLEAN NOT NULL,
    source VARCHAR NOT NULL,
    files VARCHAR NOT NULL,
    PRIMARY KEY (run, dataset)
);
COMMENT ON TABLE run_datasets IS 'What the datasets of a run were made of; one row per run and dataset. Runs of older versions have none.';
COMMENT ON COLUMN run_datasets.run IS 'the run, as in runs';
COMMENT ON COLUMN run_datasets.dataset IS 'name of the dataset in the suite';
COMMENT ON COLUMN run_datasets.fingerprint IS 'the dataset, as in datasets';
COMMENT ON COLUMN run_datasets.filter IS 'which users and items were kept';
COMMENT ON COLUMN run_datasets.scale IS 'share of the users that were read';
COMMENT ON COLUMN run_datasets.stand_in IS 'whether the data are made up in the shape of a published dataset';
COMMENT ON COLUMN run_datasets.source IS 'resolved settings of the source as JSON text';
COMMENT ON COLUMN run_datasets.files IS 'sha256 of the raw files by name, as JSON text: first the interactions, then the item table';

CREATE TABLE imported_cells (
    suite VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    title VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    seed INTEGER NOT NULL,
    base VARCHAR NOT NULL DEFAULT '',
    control VARCHAR NOT NULL DEFAULT '',
    protocol VARCHAR NOT NULL DEFAULT '',
    tuning VARCHAR NOT NULL DEFAULT '',
    PRIMARY KEY (suite, dataset, model, variant, seed)
);
COMMENT ON TABLE imported_cells IS 'Imported ranks, with their names in the tables of a suite; every run of the suite shows them.';
COMMENT ON COLUMN imported_cells.suite IS 'name of the suite';
COMMENT ON COLUMN imported_cells.key IS 'content key, as in cells';
COMMENT ON COLUMN imported_cells.dataset IS 'name of the dataset in the suite';
COMMENT ON COLUMN imported_cells.model IS 'name of the model in the suite';
COMMENT ON COLUMN imported_cells.title IS 'name of the model in tables';
COMMENT ON COLUMN imported_cells.type IS 'external';
COMMENT ON COLUMN imported_cells.variant IS 'name of the variant; empty for the model itself';
COMMENT ON COLUMN imported_cells.seed IS 'seed under which they are compared with trained cells';
COMMENT ON COLUMN imported_cells.base IS 'as in run_cells';
COMMENT ON COLUMN imported_cells.control IS 'as in run_cells';
COMMENT ON COLUMN imported_cells.protocol IS 'as in run_cells';
COMMENT ON COLUMN imported_cells.tuning IS 'as in run_cells';

CREATE MACRO realistic_rank(higher, ties) AS higher + 1 + (ties + 1) // 2;
COMMENT ON MACRO realistic_rank IS 'Rank from 1 of an item that `higher` items outscore and `ties` others equal: it takes the middle of its ties, rounded up.';
-- NULL, as where a join finds no rank, stays NULL: it does not count as a miss.
CREATE MACRO hr(rank, n) AS CASE WHEN rank <= n THEN 1.0::DOUBLE WHEN rank > n THEN 0.0::DOUBLE END;
COMMENT ON MACRO hr IS 'Hit rate at n of one rank: 1 if rank <= n, else 0; NULL if rank is NULL.';
CREATE MACRO mrr(rank, n) AS CASE WHEN rank <= n THEN 1.0::DOUBLE / rank WHEN rank > n THEN 0.0::DOUBLE END;
COMMENT ON MACRO mrr IS 'Reciprocal rank at n of one rank: 1 / rank if rank <= n, else 0; NULL if rank is NULL.';
CREATE MACRO ndcg(rank, n) AS CASE WHEN rank <= n THEN 1.0::DOUBLE / log2(rank + 1) WHEN rank > n THEN 0.0::DOUBLE END;
COMMENT ON MACRO ndcg IS 'NDCG at n of one rank, with one relevant item: 1 / log2(rank + 1) if rank <= n, else 0; NULL if rank is NULL.';
-- Expected metrics: the mean gain of the ranks higher + 1 to higher + ties + 1, those beyond n being 0.
CREATE MACRO expected_hr(higher, ties, n) AS
    CASE WHEN higher + ties + n IS NOT NULL
         THEN (least(higher + ties + 1, n) - least(higher, n))::DOUBLE / (ties + 1) END;
COMMENT ON MACRO expected_hr IS 'Hit rate at n of an item that `higher` items outscore and `ties` others equal: its mean over all orders of the ties; NULL if any is NULL.';
CREATE MACRO expected_mrr(higher, ties, n) AS
    CASE WHEN higher + ties + n IS NOT NULL
         THEN coalesce(list_sum([1.0::DOUBLE / i FOR i IN range(least(higher, n) + 1, least(higher + ties + 1, n) + 1)]), 0.0)
              / (ties + 1) END;
COMMENT ON MACRO expected_mrr IS 'Reciprocal rank at n of an item that `higher` items outscore and `ties` others equal: its mean over all orders of the ties; NULL if any is NULL.';
CREATE MACRO expected_ndcg(higher, ties, n) AS
    CASE WHEN higher + ties + n IS NOT NULL
         THEN coalesce(list_sum([1.0::DOUBLE / log2(i + 1) FOR i IN range(least(higher, n) + 1, least(higher + ties + 1, n) + 1)]), 0.0)
              / (ties + 1) END;
COMMENT ON MACRO expected_ndcg IS 'NDCG at n of an item that `higher` items outscore and `ties` others equal: its mean over all orders of the ties; NULL if any is NULL.';

-- Which cells may appear in one table is decided only here, for the report, compare, imports and the views.

-- Targets and candidates of the test ranks of a complete cell. Cells of older versions have no digest, so their settings
-- are used instead. Under a mask, their repeated targets were exempt from it, which they are in no cell today.
CREATE VIEW cell_bases AS
SELECT cell, key, fingerprint, "split", valid_share, test_share, mask_history, digest,
       concat_ws(' ', fingerprint, "split", valid_share, test_share, mask_history) AS said
FROM (
    SELECT cells.cell, key, fingerprint, targets || ' ' || candidates AS digest,
           concat_ws(
               ', ', json_extract_string(settings, '$.protocol.split'),
               'target ' || json_extract_string(settings, '$.protocol.target'),
               'without ' || json_extract_string(settings, '$.protocol.later') || ' later'
           ) AS "split",
           json_extract_string(settings, '$.protocol.valid_share') AS valid_share,
           json_extract_string(settings, '$.protocol.test_share') AS test_share,
           json_extract_string(settings, '$.protocol.mask_history')
               || CASE WHEN digest IS NULL AND json_extract_string(settings, '$.protocol.mask_history') <> 'false'
                  THEN ', targets exempt' ELSE '' END AS mask_history
    FROM cells LEFT JOIN (SELECT * FROM cell_targets WHERE "split" = 'test') AS ranked ON ranked.cell = cells.cell
    WHERE status = 'complete'
);
COMMENT ON VIEW cell_bases IS 'What the test ranks of every complete cell are of: data, split, mask and candidates. Cells with an equal basis may be compared user by user.';
COMMENT ON COLUMN cell_bases.cell IS 'the cell, as in cells';
COMMENT ON COLUMN cell_bases.key IS 'content key, as in cells';
COMMENT ON COLUMN cell_bases.fingerprint IS 'the dataset, as in datasets';
COMMENT ON COLUMN cell_bases."split" IS 'kind of split, with what tells its test targets from those of others; empty where the settings do not say';
COMMENT ON COLUMN cell_bases.valid_share IS 'share held out for validation, as the settings have it';
COMMENT ON COLUMN cell_bases.test_share IS 'share held out for the test, as the settings have it';
COMMENT ON COLUMN cell_bases.mask_history IS 'setting mask_history of the protocol';
COMMENT ON COLUMN cell_bases.digest IS 'digest of targets and candidates; NULL where an older version made the cell';
COMMENT ON COLUMN cell_bases.said IS 'data, split and mask as one text';

CREATE MACRO comparable(said, digest, other_said, other_digest) AS
    said = other_said AND coalesce(digest = other_digest, true);
COMMENT ON MACRO comparable IS 'Whether two cells, given by said and digest of cell_bases, have the same targets and candidates.';

-- Rows of the tables of every run: its planned cells, and the imports for its suite and datasets. A row fits if it is
-- comparable to the newest complete cell of the run's own or, if there is none, to the newest import. An import with the
-- label of one of the run's own rows does not fit.
CREATE VIEW table_cells AS
WITH wanted AS (
    SELECT suite, run, "position", key, dataset, model, title, type, variant, seed, base, control,
           protocol, tuning, false AS imported, false AS taken
    FROM runs JOIN run_cells USING (run)
    UNION ALL
    SELECT suite, run, NULL, key, dataset, model, title, type, variant, seed, base, control, protocol, tuning, true,
           (run, trim(model || ' ' || variant)) IN (SELECT (run, trim(model || ' ' || variant)) FROM run_cells)
    FROM runs JOIN imported_cells USING (suite)
    WHERE (run, dataset) IN (SELECT (run, dataset) FROM run_cells)
), based AS (
    SELECT wanted.*, cell, said, digest FROM wanted LEFT JOIN cell_bases USING (key)
), reference AS (
    SELECT run, dataset,
           max_by({'said': said, 'digest': digest}, cell + CASE WHEN imported THEN 0 ELSE 4000000000 END) AS basis
    FROM based WHERE cell IS NOT NULL AND NOT taken GROUP BY run, dataset
)
SELECT suite, run, "position", dataset, model, title, type, variant, seed, base, control, protocol, tuning, imported,
       key, cell,
       NOT taken AND (cell IS NULL OR comparable(said, digest, basis.said, basis.digest)) AS fits
FROM based LEFT JOIN reference USING (run, dataset);
COMMENT ON VIEW table_cells IS 'Rows of the tables of every run: its planned cells and the imports for its suite.';
COMMENT ON COLUMN table_cells.suite IS 'name of the suite';
COMMENT ON COLUMN table_cells.run IS 'the run, as in runs';
COMMENT ON COLUMN table_cells."position" IS 'place of the cell in the order of the suite; NULL for imports';
COMMENT ON COLUMN table_cells.dataset IS 'name of the dataset in the suite';
COMMENT ON COLUMN table_cells.model IS 'name of the model in the suite';
COMMENT ON COLUMN table_cells.title IS 'name of the model in tables';
COMMENT ON COLUMN table_cells.type IS 'name of the model in the registry, module:Class, or external for imported ranks';
COMMENT ON COLUMN table_cells.variant IS 'name of the variant; empty for the model itself';
COMMENT ON COLUMN table_cells.seed IS 'seed of the training';
COMMENT ON COLUMN table_cells.base IS 'as in run_cells';
COMMENT ON COLUMN table_cells.control IS 'as in run_cells';
COMMENT ON COLUMN table_cells.protocol IS 'as in run_cells';
COMMENT ON COLUMN table_cells.tuning IS 'as in run_cells';
COMMENT ON COLUMN table_cells.imported IS 'whether the ranks were imported';
COMMENT ON COLUMN table_cells.key IS 'content key, as in cells';
COMMENT ON COLUMN table_cells.cell IS 'the cell, as in cells; NULL where it is not complete';
COMMENT ON COLUMN table_cells.fits IS 'whether the row is shown: false for other targets or candidates than the run''s, and for an import with the name of a row of the run';

-- A cell that several suites, or several rows of one, have in common appears once for each.
CREATE VIEW current_cells AS
SELECT suite, run, dataset, model, title, variant, seed, cell, key
FROM table_cells
WHERE fits AND cell IS NOT NULL AND run IN (SELECT max(run) FROM runs GROUP BY suite);
COMMENT ON VIEW current_cells IS 'Complete cells of the newest run of every suite, with the names of that run, and the imports that fit. A cell that several rows share appears once for each.';
COMMENT ON COLUMN current_cells.suite IS 'name of the suite';
COMMENT ON COLUMN current_cells.run IS 'the run, as in runs';
COMMENT ON COLUMN current_cells.dataset IS 'name of the dataset in the suite';
COMMENT ON COLUMN current_cells.model IS 'name of the model in the suite';
COMMENT ON COLUMN current_cells.title IS 'name of the model in tables';
COMMENT ON COLUMN current_cells.variant IS 'name of the variant; empty for the model itself';
COMMENT ON COLUMN current_cells.seed IS 'seed of the training';
COMMENT ON COLUMN current_cells.cell IS 'the cell, as in cells';
COMMENT ON COLUMN current_cells.key IS 'content key, as in cells';

CREATE VIEW user_ranks AS
SELECT suite, dataset, model, title, variant, seed, split, "user", target, higher, ties,
       realistic_rank(higher, ties) AS rank, cell
FROM (SELECT *, row_number() OVER (PARTITION BY cell, split, "user" ORDER BY rowid) AS target FROM ranks)
JOIN current_cells USING (cell);
COMMENT ON VIEW user_ranks IS 'Rank of every held-out item in the newest run of every suite; one row per cell, split, user and target.';
COMMENT ON COLUMN user_ranks.suite IS 'name of the suite';
COMMENT ON COLUMN user_ranks.dataset IS 'name of the dataset in the suite';
COMMENT ON COLUMN user_ranks.model IS 'name of the model in the suite';
COMMENT ON COLUMN user_ranks.title IS 'name of the model in tables';
COMMENT ON COLUMN user_ranks.variant IS 'name of the variant; empty for the model itself';
COMMENT ON COLUMN user_ranks.seed IS 'seed of the training';
COMMENT ON COLUMN user_ranks."split" IS 'valid or test';
COMMENT ON COLUMN user_ranks."user" IS 'number of the user in users.parquet of the prepared dataset';
COMMENT ON COLUMN user_ranks.target IS 'number of the target among those of the user that are ranked, in order of time, from 1; above 1 only where target = all';
COMMENT ON COLUMN user_ranks.higher IS 'items with a higher score than the held-out item';
COMMENT ON COLUMN user_ranks.ties IS 'other items with the same score';
COMMENT ON COLUMN user_ranks.rank IS 'realistic rank, from 1';
COMMENT ON COLUMN user_ranks.cell IS 'the cell, as in cells';

-- Under mask_history = true, the ranks lack the targets that the user's history has, and the others are numbered alone.
CREATE VIEW user_targets AS
WITH facts AS (
    SELECT *, row_number() OVER (PARTITION BY fingerprint, "split", "user" ORDER BY rowid) AS number,
           row_number() OVER (PARTITION BY fingerprint, "split", "user", item_seen ORDER BY rowid) AS number_of_new
    FROM targets
)
SELECT suite, dataset, model, title, variant, user_ranks.seed AS seed, user_ranks."user" AS "user", target, higher, ties,
       rank, cell, history, item_count, provider_count, item_seen, provider_seen, facts.candidates AS candidates
FROM user_ranks
JOIN (SELECT cell, fingerprint, split_name, json_extract_string(settings, '$.protocol.mask_history') = 'true' AS masked
      FROM cells) AS cells USING (cell)
JOIN facts ON facts.fingerprint = cells.fingerprint AND facts."split" = split_name AND facts."user" = user_ranks."user"
    AND CASE WHEN masked THEN number_of_new = target AND NOT item_seen ELSE number = target END
WHERE user_ranks."split" = 'test';
COMMENT ON VIEW user_targets IS 'Test ranks of user_ranks with the facts of targets, for slices; one row per cell, user and target. Cells without a split_name have none.';
COMMENT ON COLUMN user_targets.suite IS 'name of the suite';
COMMENT ON COLUMN user_targets.dataset IS 'name of the dataset in the suite, with control and protocol where it has them';
COMMENT ON COLUMN user_targets.model IS 'name of the model in the suite';
COMMENT ON COLUMN user_targets.title IS 'name of the model in tables';
COMMENT ON COLUMN user_targets.variant IS 'name of the variant; empty for the model itself';
COMMENT ON COLUMN user_targets.seed IS 'seed of the training';
COMMENT ON COLUMN user_targets."user" IS 'number of the user in users.parquet of the prepared dataset';
COMMENT ON COLUMN user_targets.target IS 'number of the target among those of the user that are ranked, as in user_ranks';
COMMENT ON COLUMN user_targets.higher IS 'items with a higher score than the target';
COMMENT ON COLUMN user_targets.ties IS 'other items with the same score';
COMMENT ON COLUMN user_targets.rank IS 'realistic rank, from 1';
COMMENT ON COLUMN user_targets.cell IS 'the cell, as in cells';
COMMENT ON COLUMN user_targets.history IS 'as in targets';
COMMENT ON COLUMN user_targets.item_count IS 'as in targets';
COMMENT ON COLUMN user_targets.provider_count IS 'as in targets';
COMMENT ON COLUMN user_targets.item_seen IS 'as in targets';
COMMENT ON COLUMN user_targets.provider_seen IS 'as in targets';
COMMENT ON COLUMN user_targets.candidates IS 'as in targets';

-- An invalid cutoff is an error, not a column of zeros.
CREATE MACRO cutoff(n) AS
    CASE WHEN n >= 1 AND n <= 2147483647 AND n = floor(n) THEN n ELSE error('the cutoff must be a whole number from 1 on') END;
COMMENT ON MACRO cutoff IS 'Return n, or raise an error if it is not a whole number from 1.';

CREATE MACRO metrics_at(n) AS TABLE
SELECT suite, dataset, model, title, variant, seed, split, count(*) AS users,
       avg(hr) AS hr, avg(mrr) AS mrr, avg(ndcg) AS ndcg
FROM (
    SELECT suite, dataset, model, title, variant, seed, split, "user",
           avg(hr(rank, cutoff(n))) AS hr, avg(mrr(rank, cutoff(n))) AS mrr, avg(ndcg(rank, cutoff(n))) AS ndcg
    FROM user_ranks
    GROUP BY ALL
)
GROUP BY ALL
ORDER BY ALL;
COMMENT ON MACRO TABLE metrics_at IS 'The view metrics at another cutoff: hr, mrr and ndcg at n, means over users. Use it as SELECT * FROM metrics_at(20).';

CREATE VIEW metrics AS
SELECT suite, dataset, model, title, variant, seed, split, count(*) AS users,
       avg("hr@5") AS "hr@5", avg("hr@10") AS "hr@10", avg("mrr@5") AS "mrr@5", avg("mrr@10") AS "mrr@10",
       avg("ndcg@5") AS "ndcg@5", avg("ndcg@10") AS "ndcg@10"
FROM (
    SELECT suite, dataset, model, title, variant, seed, split, "user",
           avg(hr(rank, 5)) AS "hr@5", avg(hr(rank, 10)) AS "hr@10",
           avg(mrr(rank, 5)) AS "mrr@5", avg(mrr(rank, 10)) AS "mrr@10",
           avg(ndcg(rank, 5)) AS "ndcg@5", avg(ndcg(rank, 10)) AS "ndcg@10"
    FROM user_ranks
    GROUP BY ALL
)
GROUP BY ALL
ORDER BY ALL;
COMMENT ON VIEW metrics IS 'Mean metrics at 5 and 10 over the users of every cell in the newest run of every suite.';
COMMENT ON COLUMN metrics.suite IS 'name of the suite';
COMMENT ON COLUMN metrics.dataset IS 'name of the dataset in the suite';
COMMENT ON COLUMN metrics.model IS 'name of the model in the suite';
COMMENT ON COLUMN metrics.title IS 'name of the model in tables';
COMMENT ON COLUMN metrics.variant IS 'name of the variant; empty for the model itself';
COMMENT ON COLUMN metrics.seed IS 'seed of the training';
COMMENT ON COLUMN metrics."split" IS 'valid or test';
COMMENT ON COLUMN metrics.users IS 'number of users';
COMMENT ON COLUMN metrics."hr@5" IS 'hit rate at 5';
COMMENT ON COLUMN metrics."hr@10" IS 'hit rate at 10';
COMMENT ON COLUMN metrics."mrr@5" IS 'mean reciprocal rank at 5';
COMMENT ON COLUMN metrics."mrr@10" IS 'mean reciprocal rank at 10';
COMMENT ON COLUMN metrics."ndcg@5" IS 'NDCG at 5';
COMMENT ON COLUMN metrics."ndcg@10" IS 'NDCG at 10';
