-- grain: one row per (model, reference, target, class in both), both orders of test splits
-- reads: class_score
-- missing: a class absent from either split has no row
-- units: counts, shares of 1
-- source: raw gaps; with ten images a class most of their spread is chance (see GET /gap)
create view class_gap as
select
    r.model,
    r.split as reference,
    t.split as target,
    r.class_id,
    r.class_name,
    r.n_images as n_reference,
    t.n_images as n_target,
    r.n_correct as n_correct_reference,
    t.n_correct as n_correct_target,
    r.accuracy as accuracy_reference,
    t.accuracy as accuracy_target,
    r.accuracy - t.accuracy as gap
from class_score as r
inner join class_score as t
    on r.model = t.model and r.class_id = t.class_id and r.split <> t.split;
comment on view class_gap is 'One row per model, ordered pair of test splits and class: the raw gap.';
comment on column class_gap.model is 'Name of the model.';
comment on column class_gap.reference is 'Test split from which the gap is counted.';
comment on column class_gap.target is 'Test split to which it is counted.';
comment on column class_gap.class_id is 'Class.';
comment on column class_gap.class_name is 'Name of the class.';
comment on column class_gap.n_reference is 'Images of the class in the reference.';
comment on column class_gap.n_target is 'Images of the class in the target.';
comment on column class_gap.n_correct_reference is 'Of those, right in the reference.';
comment on column class_gap.n_correct_target is 'Of those, right in the target.';
comment on column class_gap.accuracy_reference is 'Accuracy in the reference, a share of 1.';
comment on column class_gap.accuracy_target is 'Accuracy in the target, a share of 1.';
comment on column class_gap.gap is 'Reference minus target, a fraction of 1; positive: worse on the target.';
