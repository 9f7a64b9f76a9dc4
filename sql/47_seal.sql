-- grain: one row per seal: a prediction of a target's accuracy, made before its labels were read
-- reads: results/seals.jsonl, results/*/evaluation.json, results/*/model.json
-- missing: truth and is_covered null until the same model is evaluated on the same data
-- units: shares of 1, counts
-- source: the service adds a line; whether a line was changed since, gapscope seals says
create view seal as
with
made as (
    select
        raw.sha256,
        raw.added_at as sealed_at,
        raw.content as said
    from read_json(
        'results/seals.jsonl',
        format = 'newline_delimited',
        ignore_errors = true,
        columns = {
            sha256: 'varchar',
            added_at: 'timestamp',
            content: 'struct(
                model varchar, backbone varchar, created_at varchar, head_sha256 varchar,
                reference varchar, target varchar, data_sha256 map(varchar, varchar),
                predicted struct(estimate double, low double, high double),
                n_looks_before bigint
            )'
        }
    ) as raw
),

card as (
    select
        model,
        created_at,
        head_sha256
    from read_json(
        'results/*/model.json',
        format = 'auto',
        columns = {
            model: 'varchar',
            created_at: 'varchar',
            head_sha256: 'varchar'
        }
    )
)

select
    made.sha256[:12] as seal,
    made.sealed_at,
    made.said.model,
    made.said.backbone,
    made.said.reference,
    made.said.target,
    made.said.predicted.estimate as predicted,
    made.said.predicted.low,
    made.said.predicted.high,
    evaluation.estimate as truth,
    evaluation.estimate between made.said.predicted.low and made.said.predicted.high as is_covered,
    made.said.n_looks_before,
    made.said.data_sha256[made.said.target] as data_sha256,
    made.sha256
from made
left join card
    on
        made.said.model = card.model
        and made.said.created_at = card.created_at
        and made.said.head_sha256 = card.head_sha256
left join evaluation
    on
        card.model = evaluation.model
        and made.said.target = evaluation.split
        and made.said.data_sha256[made.said.target] = evaluation.data_sha256
        and evaluation.metric = 'top1'
where made.sha256 is not null;
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
