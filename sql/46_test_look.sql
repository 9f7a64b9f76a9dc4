-- grain: one row per read of test labels
-- reads: results/looks.jsonl
-- missing: model null where none took part; split and n null where all labels could be read
-- units: counts
-- source: the service writes a line before it hands labels over
create view test_look as
select
    looked_at,
    who,
    model,
    split,
    purpose,
    n as n_labels
from read_json(
    'results/looks.jsonl',
    format = 'newline_delimited',
    ignore_errors = true,
    columns = {
        looked_at: 'timestamp',
        who: 'varchar',
        model: 'varchar',
        split: 'varchar',
        purpose: 'varchar',
        n: 'bigint'
    }
);
comment on view test_look is 'One row per read of test labels: who looked, when, with which model. The more looks a choice rests on, the more optimistic its score on that split.';
comment on column test_look.looked_at is 'When, UTC.';
comment on column test_look.who is 'User of the operating system, or the service and the client that asked it.';
comment on column test_look.model is 'Model whose answers the labels were held against; null where there was none.';
comment on column test_look.split is 'Test split; null for an SQL session, which may read all of them.';
comment on column test_look.purpose is 'evaluate, gap, hypothesis (a refined head beside its baseline), compare (imported predictions against the database), import, annotate, seal (the reference alone, to predict the target) or sql.';
comment on column test_look.n_labels is 'Labels read; null for an SQL session.';
