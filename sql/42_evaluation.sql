-- grain: one row per (model, test split, metric)
-- reads: results/*/evaluation.json
-- missing: null where a metric cannot be known, with a reason
-- units: shares of 1; nll in nats
-- source: Wilson interval for shares, bootstrap for nll and ece
create view evaluation as
select
    model,
    split,
    metric,
    estimate,
    low,
    high,
    level,
    method,
    n,
    unit,
    seed,
    reason,
    data_sha256
from read_json(
    'results/*/evaluation.json',
    format = 'auto',
    columns = {
        model: 'varchar',
        split: 'varchar',
        metric: 'varchar',
        estimate: 'double',
        low: 'double',
        high: 'double',
        level: 'double',
        method: 'varchar',
        n: 'bigint',
        unit: 'varchar',
        seed: 'bigint',
        reason: 'varchar',
        data_sha256: 'varchar'
    }
);
comment on view evaluation is 'One row per model, test split and metric.';
comment on column evaluation.model is 'Name of the model.';
comment on column evaluation.split is 'Test split.';
comment on column evaluation.metric is 'top1, top5, nll or ece.';
comment on column evaluation.estimate is 'The value.';
comment on column evaluation.low is 'Low end of the interval.';
comment on column evaluation.high is 'High end of the interval.';
comment on column evaluation.level is 'Level of the interval, .95.';
comment on column evaluation.method is 'How the interval was made.';
comment on column evaluation.n is 'Number of images.';
comment on column evaluation.unit is 'Unit of the value.';
comment on column evaluation.seed is 'Seed where chance took part; null elsewhere.';
comment on column evaluation.reason is 'Why the value cannot be known; null where it is.';
comment on column evaluation.data_sha256 is 'Digest of the file that was scored: features, or imported predictions; of features, it differs from load_report.sha256 where the data have changed since.';
