-- grain: one row per (backbone, reference split, target split, class in both), both orders
-- reads: class_moment, feature_moment, class
-- missing: null where every feature is constant within the classes, or all have one image
-- units: standard deviations within classes, pooled over both splits; ratio of variances
-- source: -
-- a class of few images moves by chance: compare rms_mean_difference with rms_by_chance
create view class_shift as
with split_pair as (
    select
        r.backbone,
        r.split as reference,
        t.split as target,
        r.class_id,
        class.class_name,
        r.n_images as n_reference,
        t.n_images as n_target,
        r.mean_values as mean_reference,
        t.mean_values as mean_target,
        r.m2_values as m2_reference,
        t.m2_values as m2_target
    from class_moment as r
    inner join class_moment as t
        on r.backbone = t.backbone and r.class_id = t.class_id and r.split <> t.split
    inner join class on r.class_id = class.class_id
),

degrees as (
    select
        backbone,
        split,
        sum(n_images - 1) as n_degrees
    from class_moment
    group by backbone, split
),

variance_list as (
    -- pooled over both splits, so that a feature nearly dead in one of them is not blown up
    select
        r.backbone,
        r.split as reference,
        t.split as target,
        list(
            (r.m2_within + t.m2_within) / nullif(dr.n_degrees + dt.n_degrees, 0)
            order by r.feature_id
        ) as variances
    from feature_moment as r
    inner join feature_moment as t
        on r.backbone = t.backbone and r.feature_id = t.feature_id and r.split <> t.split
    inner join degrees as dr on r.backbone = dr.backbone and r.split = dr.split
    inner join degrees as dt on t.backbone = dt.backbone and t.split = dt.split
    group by r.backbone, r.split, t.split
),

standardised as (
    -- joined class by class and unpacked last: a join of a million short rows takes far longer
    select
        p.backbone,
        p.reference,
        p.target,
        p.class_id,
        p.class_name,
        p.n_reference,
        p.n_target,
        unnest(p.mean_target) - unnest(p.mean_reference) as difference,
        unnest(p.m2_reference) / nullif(p.n_reference - 1, 0) as variance_reference,
        unnest(p.m2_target) / nullif(p.n_target - 1, 0) as variance_target,
        unnest(v.variances) as variance
    from split_pair as p
    inner join variance_list as v
        on p.backbone = v.backbone and p.reference = v.reference and p.target = v.target
)

select
    backbone,
    reference,
    target,
    class_id,
    class_name,
    n_reference,
    n_target,
    sqrt(avg(difference ** 2 / nullif(variance, 0))) as rms_mean_difference,
    -- from the class's own variances; a class of one image has none and takes the pooled one
    sqrt(avg((
        coalesce(variance_reference, variance) / n_reference
        + coalesce(variance_target, variance) / n_target
    ) / nullif(variance, 0))) as rms_by_chance,
    avg(coalesce(variance_target, variance) / nullif(variance, 0))
    / nullif(avg(coalesce(variance_reference, variance) / nullif(variance, 0)), 0) as variance_ratio
from standardised
group by all;
comment on view class_shift is 'One row per backbone, ordered pair of splits and class: how far its features moved.';
comment on column class_shift.backbone is 'Backbone of the features.';
comment on column class_shift.reference is 'Split from which the shift is counted.';
comment on column class_shift.target is 'Split to which it is counted.';
comment on column class_shift.class_id is 'Class.';
comment on column class_shift.class_name is 'Name of the class.';
comment on column class_shift.n_reference is 'Images of the class in the reference.';
comment on column class_shift.n_target is 'Images of the class in the target.';
comment on column class_shift.rms_mean_difference is 'Root mean square, over features, of the difference of class means, in standard deviations within classes.';
comment on column class_shift.rms_by_chance is 'What that would be on average by sampling alone, from the spread of the class itself.';
comment on column class_shift.variance_ratio is 'Spread of the class in the target over that in the reference, mean over features.';
