-- grain: one row per seal: a prediction of a target's accuracy, made before its labels were read
-- reads: results/seals.jsonl, results/*/evaluation.json, results/*/model.json
-- missing: truth and is_covered null until the same model is evaluated on the same data
-- units: shares of 1, counts
-- source: the service adds a line; whether a line was changed since, gapscope seals says
create view seal as
with
record as (
    select
        sha256,
        "at" as sealed_at,
        content.*
    from read_json(
        'results/seals.jsonl',
        format = 'newline_delimited',
        ignore_errors = true,
        columns = {
            sha256: 'varchar',
            "at": 'timestamp',
            content: 'struct(
                model varchar, backbone varchar, created_at varchar, head_sha256 varchar,
                reference varchar, target varchar, data_sha256 map(varchar, varchar),
                predicted struct(estimate double, low double, high double),
                n_looks_before bigint
            )'
        }
    )
    where sha256 is not null
),

card as (
    select
        model,
        created_at,
        head_sha256
    from read_json(
        'results/*/model.json',
        format = 'auto',
        columns = {model: 'varchar', created_at: 'varchar', head_sha256: 'varchar'}
    )
)

select
    record.sha256[:12] as seal,
    record.sealed_at,
    record.model,
    record.backbone,
    record.reference,
    record.target,
    record.predicted.estimate as predicted,
    record.predicted.low,
    record.predicted.high,
    evaluation.estimate as truth,
    evaluation.estimate between record.predicted.low and record.predicted.high as is_covered,
    record.n_looks_before,
    record.data_sha256[record.target] as data_sha256,
    record.sha256
from record
left join card
    on
        record.model = card.model
        and record.created_at = card.created_at
        and record.head_sha256 = card.head_sha256
left join evaluation
    on
        card.model = evaluation.model
        and record.target = evaluation.split
        and record.data_sha256[record.target] = evaluation.data_sha256
        and evaluation.metric = 'top1';
comment on view seal is 'One row per seal: the accuracy on a target, predicted before its labels were read, and what came.';
comment on column seal.seal is 'Its id: the first digits of its sha256.';
comment on column seal.sealed_at is 'When, UTC.';
comment on column seal.model is 'Model whose accuracy was predicted.';
comment on column seal.backbone is 'Backbone that it reads.';
comment on column seal.reference is 'Test split whose labels the prediction rests on.';
comment on column seal.target is 'Test split whose accuracy was predicted.';
comment on column seal.predicted is 'Predicted accuracy; null where nothing could be predicted.';
comment on column seal.low is 'Low end of its 95 % prediction interval.';
comment on column seal.high is 'High end of its 95 % prediction interval.';
comment on column seal.truth is 'Accuracy by the evaluation of the same model on the same data; null until there is one.';
comment on column seal.is_covered is 'Whether the interval holds the truth; null until there is one.';
comment on column seal.n_looks_before is 'Reads of the target''s labels, with other models or in SQL, before the seal.';
comment on column seal.data_sha256 is 'Digest of the target''s features.';
comment on column seal.sha256 is 'Over the record and all before it.';
