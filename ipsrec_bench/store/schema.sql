-- The result store. Every table and column is described by its comment, so that any DuckDB client can show it
-- (duckdb_tables(), duckdb_columns()). A migration copies the columns of an older store by name; a column that is added
-- here must be nullable or have a default, which says what holds where an older version recorded nothing.

CREATE TABLE store (version INTEGER NOT NULL, created TIMESTAMP NOT NULL);
COMMENT ON TABLE store IS 'One row: the version of this schema, and when the file was made (UTC).';

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
COMMENT ON TABLE datasets IS 'Prepared datasets that cells were trained on; shares as ipsrec-bench data stats defines them.';
COMMENT ON COLUMN datasets.fingerprint IS 'sha256 of the prepared sequences';
COMMENT ON COLUMN datasets.stand_in IS 'made up in the shape of a published dataset';
COMMENT ON COLUMN datasets.scale IS 'share of the users that were read, as the first run with these sequences said; run_datasets has it for each run';
COMMENT ON COLUMN datasets.filter IS 'which users and items stayed, likewise';

CREATE TABLE splits (
    fingerprint VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    test_users BIGINT NOT NULL,
    valid_users BIGINT NOT NULL,
    tied_targets DOUBLE,
    leaked_targets DOUBLE,
    repeated_targets DOUBLE,
    unseen_targets DOUBLE,
    PRIMARY KEY (fingerprint, split)
);
COMMENT ON TABLE splits IS 'What a split makes of a dataset: one row per dataset and split. Shares are of the test targets; NULL where an older version did not record them.';
COMMENT ON COLUMN splits.split IS 'with the shares that it takes';
COMMENT ON COLUMN splits.tied_targets IS 'share with the time of the interaction before them';
COMMENT ON COLUMN splits.leaked_targets IS 'share older than the newest training interaction';
COMMENT ON COLUMN splits.repeated_targets IS 'share with an item of the user''s history';
COMMENT ON COLUMN splits.unseen_targets IS 'share with an item that no training interaction has';

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
COMMENT ON TABLE environments IS 'Where cells ran: versions, processor, cores available, threads used by torch, device.';
COMMENT ON COLUMN environments.revision IS 'commit of the toolkit, with "+" if files were changed; empty where it is no git checkout';

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
    deterministic BOOLEAN
);
COMMENT ON TABLE cells IS 'Training runs, and ranks imported from elsewhere. A complete cell has its epochs and ranks; a failed one has its traceback in error. One row per key.';
COMMENT ON COLUMN cells.key IS 'content key: equal keys, equal ranks';
COMMENT ON COLUMN cells.type IS 'model by its name in the registry';
COMMENT ON COLUMN cells.settings IS 'resolved settings as JSON text: config, training, protocol';
COMMENT ON COLUMN cells.started IS 'UTC';
COMMENT ON COLUMN cells.seconds IS 'wall-clock time of the cell: training, validation and ranking';
COMMENT ON COLUMN cells.peak_memory IS 'largest resident size of the process while the cell ran, bytes';
COMMENT ON COLUMN cells.depth IS 'of imported lists: length of the shortest, a target that is not listed counts as last; NULL where all ranks are known';
COMMENT ON COLUMN cells.deterministic IS 'no seed changes its ranks: one cell serves every seed of a suite; NULL where an older version did not record it';
COMMENT ON COLUMN cells.best_valid IS 'stop_metric on the validation targets at best_epoch';

CREATE TABLE epochs (
    cell INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    loss DOUBLE NOT NULL,
    cross_entropy DOUBLE NOT NULL,
    contrastive DOUBLE,
    valid DOUBLE NOT NULL,
    train_seconds DOUBLE NOT NULL,
    valid_seconds DOUBLE NOT NULL,
    targets BIGINT NOT NULL
);
COMMENT ON TABLE epochs IS 'Learning curves: mean losses over an epoch, the stop metric after it, and its cost.';

CREATE TYPE held_out AS ENUM ('valid', 'test');
CREATE TABLE ranks (
    cell INTEGER NOT NULL,
    split held_out NOT NULL,
    "user" INTEGER NOT NULL,
    higher INTEGER NOT NULL,
    ties INTEGER NOT NULL
);
COMMENT ON TABLE ranks IS 'One row per cell, split and evaluated user: how many items score above the held-out one, and how many others score the same.';
COMMENT ON COLUMN ranks."user" IS 'id in users.parquet of the prepared dataset';

CREATE TABLE cell_targets (
    cell INTEGER NOT NULL,
    split held_out NOT NULL,
    users INTEGER NOT NULL,
    left_out INTEGER NOT NULL,
    targets VARCHAR NOT NULL,
    candidates VARCHAR NOT NULL
);
COMMENT ON TABLE cell_targets IS 'What the ranks of a cell are of, one row per split. Cells of older versions have none.';
COMMENT ON COLUMN cell_targets.users IS 'users that are ranked';
COMMENT ON COLUMN cell_targets.left_out IS 'further users, whose target stands in their history, which is masked';
COMMENT ON COLUMN cell_targets.targets IS 'digest of the dataset, the users and their targets';
COMMENT ON COLUMN cell_targets.candidates IS 'among which a target is ranked';

CREATE TABLE targets (
    fingerprint VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    "user" INTEGER NOT NULL,
    history INTEGER NOT NULL,
    item_count INTEGER NOT NULL,
    provider_count INTEGER NOT NULL,
    item_seen BOOLEAN NOT NULL,
    provider_seen BOOLEAN NOT NULL
);
COMMENT ON TABLE targets IS 'What the data say of the test targets: one row per dataset, split and user.';
COMMENT ON COLUMN targets.split IS 'with the shares that it takes';
COMMENT ON COLUMN targets.history IS 'interactions of the user before the target';
COMMENT ON COLUMN targets.item_count IS 'training interactions with the target';
COMMENT ON COLUMN targets.provider_count IS 'training interactions with its provider; -1 where that is unknown';
COMMENT ON COLUMN targets.item_seen IS 'the history holds the target';
COMMENT ON COLUMN targets.provider_seen IS 'the history holds its provider';

CREATE SEQUENCE run_numbers;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY DEFAULT nextval('run_numbers'),
    suite VARCHAR NOT NULL,
    settings VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    overrides VARCHAR[] NOT NULL,
    started TIMESTAMP NOT NULL
);
COMMENT ON TABLE runs IS 'Every start of a suite, with the suite as written (text) and as understood (settings, JSON).';

CREATE TABLE suites (suite VARCHAR PRIMARY KEY, place VARCHAR NOT NULL);
COMMENT ON TABLE suites IS 'Where the file of every suite lay when it was last run or imported for. An older version recorded none.';
COMMENT ON COLUMN suites.place IS 'path from the folder of the store, so that both can be moved together';

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
    PRIMARY KEY (run, position)
);
COMMENT ON TABLE run_cells IS 'What a run wanted, by the suite''s own labels; cells are shared between runs by their key.';

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
COMMENT ON TABLE run_datasets IS 'What a run''s datasets were made of, by the suite''s own labels. Runs of older versions have no rows here.';
COMMENT ON COLUMN run_datasets.source IS 'resolved settings of the source as JSON text';
COMMENT ON COLUMN run_datasets.files IS 'sha256 of the raw files by name, as JSON text: of the interactions, then of the item table';

CREATE TABLE imported_cells (
    suite VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    title VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    seed INTEGER NOT NULL,
    PRIMARY KEY (suite, dataset, model, variant, seed)
);
COMMENT ON TABLE imported_cells IS 'Ranks made elsewhere, under the labels that they have in a suite''s tables: every run of the suite has them, too.';

CREATE MACRO realistic_rank(higher, ties) AS higher + 1 + (ties + 1) // 2;
-- NULL, as where a join finds no rank, stays NULL: it is no miss.
CREATE MACRO hr(rank, n) AS CASE WHEN rank <= n THEN 1.0::DOUBLE WHEN rank > n THEN 0.0::DOUBLE END;
CREATE MACRO mrr(rank, n) AS CASE WHEN rank <= n THEN 1.0::DOUBLE / rank WHEN rank > n THEN 0.0::DOUBLE END;
CREATE MACRO ndcg(rank, n) AS CASE WHEN rank <= n THEN 1.0::DOUBLE / log2(rank + 1) WHEN rank > n THEN 0.0::DOUBLE END;

-- What may stand in one table is decided here and nowhere else: by the report, by compare, by imports and by the views.

-- What the test ranks of a complete cell are of. Cells of older versions have no digest; then what their settings say
-- has to do, and under a mask their repeated targets were exempt from it, as no cell's are today.
CREATE VIEW cell_bases AS
SELECT cell, key, fingerprint, "split", valid_share, test_share, mask_history, digest,
       concat_ws(' ', fingerprint, "split", valid_share, test_share, mask_history) AS said
FROM (
    SELECT cells.cell, key, fingerprint, targets || ' ' || candidates AS digest,
           json_extract_string(settings, '$.protocol.split') AS "split",
           json_extract_string(settings, '$.protocol.valid_share') AS valid_share,
           json_extract_string(settings, '$.protocol.test_share') AS test_share,
           json_extract_string(settings, '$.protocol.mask_history')
               || CASE WHEN digest IS NULL AND json_extract_string(settings, '$.protocol.mask_history') <> 'false'
                  THEN ', targets exempt' ELSE '' END AS mask_history
    FROM cells LEFT JOIN (SELECT * FROM cell_targets WHERE "split" = 'test') AS ranked ON ranked.cell = cells.cell
    WHERE status = 'complete'
);
COMMENT ON VIEW cell_bases IS 'What the test ranks of every complete cell are of: data, split, mask, digest of targets and candidates (NULL where an older version made the cell).';

CREATE MACRO comparable(said, digest, other_said, other_digest) AS
    said = other_said AND coalesce(digest = other_digest, true);

-- What stands in the tables of every run: the cells that it wanted, and what was imported for its suite and datasets.
-- What is comparable to the newest of the run's own cells fits; where none of these is complete, what is comparable to the
-- newest import. An import with the label of one of the run's own rows does not fit.
CREATE VIEW table_cells AS
WITH wanted AS (
    SELECT suite, run, "position", key, dataset, model, title, type, variant, seed, false AS imported, false AS taken
    FROM runs JOIN run_cells USING (run)
    UNION ALL
    SELECT suite, run, NULL, key, dataset, model, title, type, variant, seed, true,
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
SELECT suite, run, "position", dataset, model, title, type, variant, seed, imported, key, cell,
       NOT taken AND (cell IS NULL OR comparable(said, digest, basis.said, basis.digest)) AS fits
FROM based LEFT JOIN reference USING (run, dataset);
COMMENT ON VIEW table_cells IS 'What every run has in its tables: the cells that it wanted (cell is NULL where one is not complete) and imports; fits is false for one of other targets or candidates, and for an import with the label of a row of the run, which are left out.';

-- A cell that several suites, or several rows of one, have in common appears once for each.
CREATE VIEW current_cells AS
SELECT suite, run, dataset, model, title, variant, seed, cell, key
FROM table_cells
WHERE fits AND cell IS NOT NULL AND run IN (SELECT max(run) FROM runs GROUP BY suite);
COMMENT ON VIEW current_cells IS 'The complete cells of the newest run of every suite, under that run''s labels, and the imports that fit.';

CREATE VIEW user_ranks AS
SELECT suite, dataset, model, title, variant, seed, split, "user", higher, ties, realistic_rank(higher, ties) AS rank, cell
FROM ranks
JOIN current_cells USING (cell);

-- A cutoff that is none is an error, not a column of zeros.
CREATE MACRO cutoff(n) AS
    CASE WHEN n >= 1 AND n <= 2147483647 AND n = floor(n) THEN n ELSE error('the cutoff must be a whole number from 1 on') END;

CREATE MACRO metrics_at(n) AS TABLE
SELECT suite, dataset, model, title, variant, seed, split, count(*) AS users,
       avg(hr(rank, cutoff(n))) AS hr, avg(mrr(rank, cutoff(n))) AS mrr, avg(ndcg(rank, cutoff(n))) AS ndcg
FROM user_ranks
GROUP BY ALL
ORDER BY ALL;

CREATE VIEW metrics AS
SELECT suite, dataset, model, title, variant, seed, split, count(*) AS users,
       avg(hr(rank, 5)) AS "hr@5", avg(hr(rank, 10)) AS "hr@10",
       avg(mrr(rank, 5)) AS "mrr@5", avg(mrr(rank, 10)) AS "mrr@10",
       avg(ndcg(rank, 5)) AS "ndcg@5", avg(ndcg(rank, 10)) AS "ndcg@10"
FROM user_ranks
GROUP BY ALL
ORDER BY ALL;
