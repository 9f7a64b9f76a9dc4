-- grain: one row per (backbone, reference split, target split, class in both), both orders
-- reads: class_moment, class
-- missing: null where every feature is constant within the classes of the reference
-- units: standard deviations within the reference's classes; ratio of variances
-- source: -
-- a class of few images moves by chance: compare rms_mean_difference with rms_by_chance
create view class_shift as
with within_reference as (
    select
        backbone,
        split,
        feature_id,
        sum(m2) / nullif(sum(n_images - 1), 0) as variance
    from class_moment
    group by backbone, split, feature_id
),

class_pair as (
    select
        r.backbone,
        r.split as reference,
        t.split as target,
        r.class_id,
        any_value(r.n_images) as n_reference,
        any_value(t.n_images) as n_target,
        sqrt(avg((t.mean_value - r.mean_value) ** 2 / nullif(w.variance, 0)))
            as rms_mean_difference,
        avg(t.m2 / nullif(t.n_images - 1, 0) / nullif(w.variance, 0)) as spread_target,
        avg(r.m2 / nullif(r.n_images - 1, 0) / nullif(w.variance, 0)) as spread_reference
    from class_moment as r
    inner join class_moment as t
        on
            r.backbone = t.backbone
            and r.class_id = t.class_id
            and r.feature_id = t.feature_id
            and r.split <> t.split
    inner join within_reference as w
        on r.backbone = w.backbone and r.split = w.split and r.feature_id = w.feature_id
    group by r.backbone, r.split, t.split, r.class_id
)

select
    p.backbone,
    p.reference,
    p.target,
    p.class_id,
    class.class_name,
    p.n_reference,
    p.n_target,
    p.rms_mean_difference,
    sqrt(1 / p.n_reference + 1 / p.n_target) as rms_by_chance,
    p.spread_target / nullif(p.spread_reference, 0) as variance_ratio
from class_pair as p
inner join class on p.class_id = class.class_id;
comment on view class_shift is 'One row per backbone, ordered pair of splits and class: how far its features moved.';
comment on column class_shift.backbone is 'Backbone of the features.';
comment on column class_shift.reference is 'Split from which the shift is counted.';
comment on column class_shift.target is 'Split to which it is counted.';
comment on column class_shift.class_id is 'Class.';
comment on column class_shift.class_name is 'Name of the class.';
comment on column class_shift.n_reference is 'Images of the class in the reference.';
comment on column class_shift.n_target is 'Images of the class in the target.';
comment on column class_shift.rms_mean_difference is 'Root mean square, over features, of the difference of class means, in standard deviations within the reference classes.';
comment on column class_shift.rms_by_chance is 'About what that would be by sampling alone, with no shift: sqrt(1/n_reference + 1/n_target).';
comment on column class_shift.variance_ratio is 'Spread of the class in the target over that in the reference, mean over features.';
