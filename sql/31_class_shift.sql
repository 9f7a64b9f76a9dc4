-- grain: one row per (backbone, reference split, target split, class in both), both orders
-- reads: class_moment, class
-- missing: null where every feature is constant within the classes, or all have one image
-- units: standard deviations within classes, pooled over both splits; ratio of variances
-- source: -
-- a class of few images moves by chance: compare rms_mean_difference with rms_by_chance
create view class_shift as
with class_pair as (
    select
        r.backbone,
        r.split as reference,
        t.split as target,
        r.class_id,
        r.feature_id,
        r.n_images as n_reference,
        t.n_images as n_target,
        r.m2 as m2_reference,
        t.m2 as m2_target,
        (t.mean_value - r.mean_value) ** 2 as squared_difference
    from class_moment as r
    inner join class_moment as t
        on
            r.backbone = t.backbone
            and r.class_id = t.class_id
            and r.feature_id = t.feature_id
            and r.split <> t.split
),

within_classes as (
    -- pooled over both splits, so that a feature nearly dead in one of them is not blown up
    select
        backbone,
        reference,
        target,
        feature_id,
        sum(m2_reference + m2_target) / nullif(sum(n_reference + n_target - 2), 0) as variance
    from class_pair
    group by backbone, reference, target, feature_id
),

standardised as (
    -- the class's own variances; a class of one image has none and takes the pooled one
    select
        p.*,
        nullif(w.variance, 0) as variance,
        coalesce(p.m2_reference / nullif(p.n_reference - 1, 0), w.variance) as variance_reference,
        coalesce(p.m2_target / nullif(p.n_target - 1, 0), w.variance) as variance_target
    from class_pair as p
    inner join within_classes as w
        on
            p.backbone = w.backbone
            and p.reference = w.reference
            and p.target = w.target
            and p.feature_id = w.feature_id
)

select
    s.backbone,
    s.reference,
    s.target,
    s.class_id,
    any_value(class.class_name) as class_name,
    any_value(s.n_reference) as n_reference,
    any_value(s.n_target) as n_target,
    sqrt(avg(s.squared_difference / s.variance)) as rms_mean_difference,
    sqrt(avg(
        (s.variance_reference / s.n_reference + s.variance_target / s.n_target) / s.variance
    )) as rms_by_chance,
    avg(s.variance_target / s.variance)
    / nullif(avg(s.variance_reference / s.variance), 0) as variance_ratio
from standardised as s
inner join class on s.class_id = class.class_id
group by s.backbone, s.reference, s.target, s.class_id;
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
