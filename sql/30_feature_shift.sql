-- grain: one row per (backbone, reference split, target split, feature), both orders
-- reads: feature_stat, feature_quantile
-- missing: null where a standard deviation is 0 or undefined
-- units: standard deviations; ratio of variances
-- source: Cohen (1988), d with the mean of the two variances
-- sign: target minus reference
create view feature_shift as
with quantile_shift as (
    select
        r.backbone,
        r.split as reference,
        t.split as target,
        r.feature_id,
        avg(abs(t.value - r.value)) as mean_distance
    from feature_quantile as r
    inner join feature_quantile as t
        on
            r.backbone = t.backbone
            and r.feature_id = t.feature_id
            and r.probability = t.probability
            and r.split <> t.split
    group by r.backbone, r.split, t.split, r.feature_id
)

select
    r.backbone,
    r.split as reference,
    t.split as target,
    r.feature_id,
    r.feature_name,
    r.mean_value as mean_reference,
    t.mean_value as mean_target,
    r.sd_value as sd_reference,
    t.sd_value as sd_target,
    (t.mean_value - r.mean_value)
    / nullif(sqrt((r.sd_value ** 2 + t.sd_value ** 2) / 2), 0) as mean_difference,
    t.sd_value ** 2 / nullif(r.sd_value ** 2, 0) as variance_ratio,
    q.mean_distance / nullif(r.sd_value, 0) as quantile_shift
from feature_stat as r
inner join feature_stat as t
    on r.backbone = t.backbone and r.feature_id = t.feature_id and r.split <> t.split
inner join quantile_shift as q
    on
        r.backbone = q.backbone
        and r.feature_id = q.feature_id
        and r.split = q.reference
        and t.split = q.target;
comment on view feature_shift is 'One row per backbone, ordered pair of splits and feature: how its distribution differs.';
comment on column feature_shift.backbone is 'Backbone of the feature.';
comment on column feature_shift.reference is 'Split from which the shift is counted.';
comment on column feature_shift.target is 'Split to which it is counted.';
comment on column feature_shift.feature_id is 'Position of the feature in the vector, from 0.';
comment on column feature_shift.feature_name is 'Name of its column in the feature files.';
comment on column feature_shift.mean_reference is 'Mean in the reference, in the unit of the feature.';
comment on column feature_shift.mean_target is 'Mean in the target, in the unit of the feature.';
comment on column feature_shift.sd_reference is 'Standard deviation in the reference.';
comment on column feature_shift.sd_target is 'Standard deviation in the target.';
comment on column feature_shift.mean_difference is 'Target mean minus reference mean, in pooled standard deviations (Cohen d).';
comment on column feature_shift.variance_ratio is 'Target variance over reference variance.';
comment on column feature_shift.quantile_shift is 'Mean absolute distance of the stored quantiles, in reference standard deviations.';
