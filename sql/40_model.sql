-- grain: one row per model: a trained head, or one that was trained elsewhere
-- reads: results/*/model.json
-- missing: null where a card lacks the field
-- units: shares of 1, seconds
-- source: the service writes one folder a model
create view model as
select
    model,
    backbone,
    head,
    params,
    seed,
    n_train,
    n_classes,
    validation.method as validation_method,
    validation.top1.estimate as validation_top1,
    validation.top1.low as validation_top1_low,
    validation.top1.high as validation_top1_high,
    seconds_s,
    created_at
from read_json(
    'results/*/model.json',
    format = 'auto',
    columns = {
        model: 'varchar',
        backbone: 'varchar',
        head: 'varchar',
        params: 'json',
        seed: 'bigint',
        n_train: 'bigint',
        n_classes: 'bigint',
        validation: 'struct(method varchar, top1 struct(estimate double, low double, high double))',
        seconds_s: 'double',
        created_at: 'timestamp'
    }
);
comment on view model is 'One row per model: a head trained here, or a model trained elsewhere whose predictions were imported.';
comment on column model.model is 'Name of the model.';
comment on column model.backbone is 'Backbone whose features it reads; null for an imported model.';
comment on column model.head is 'Kind of head: logistic, lda, ridge, nearest_mean, knn, cosine, mlp, ensemble or sklearn: and a name; imported: trained elsewhere; native: weights that were given; interpolated: between two others.';
comment on column model.params is 'Hyper-parameters as chosen, JSON.';
comment on column model.seed is 'Seed of its folds; null for a model not trained here.';
comment on column model.n_train is 'Number of train rows; null for an imported model and a native head: unknown.';
comment on column model.n_classes is 'Number of classes it knows; of an imported model, those that its files name.';
comment on column model.validation_method is 'How the hyper-parameters were chosen, on train rows alone.';
comment on column model.validation_top1 is 'Internal validation accuracy, a share of 1; optimistic where the backbone has seen the train images.';
comment on column model.validation_top1_low is 'Low end of its 95 % interval.';
comment on column model.validation_top1_high is 'High end of its 95 % interval.';
comment on column model.seconds_s is 'Seconds that training took; null for an imported model.';
comment on column model.created_at is 'When, UTC.';
