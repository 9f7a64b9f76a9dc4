-- grain: one row per (backbone, split, feature)
-- reads: feature_moment, feature_name, feature_quantile
-- missing: sd null below two images
-- units: of the feature
-- source: -
create view feature_stat as
with middle as (
    select
        backbone,
        split,
        feature_id,
        max(value) filter (where probability = 0.25) as quartile_1,
        max(value) filter (where probability = 0.5) as median,
        max(value) filter (where probability = 0.75) as quartile_3
    from feature_quantile
    group by backbone, split, feature_id
)

select
    total.backbone,
    total.split,
    total.feature_id,
    feature_name.feature_name,
    total.n_images,
    total.mean_value,
    sqrt((total.m2_within + total.m2_between) / nullif(total.n_images - 1, 0)) as sd_value,
    total.min_value,
    middle.quartile_1,
    middle.median,
    middle.quartile_3,
    total.max_value,
    total.m2_between / nullif(total.m2_within + total.m2_between, 0) as share_between_classes
from feature_moment as total
inner join middle
    on
        total.backbone = middle.backbone
        and total.split = middle.split
        and total.feature_id = middle.feature_id
inner join feature_name
    on
        total.backbone = feature_name.backbone
        and total.feature_id = feature_name.feature_id;
comment on view feature_stat is 'One row per backbone, split and feature: its distribution.';
comment on column feature_stat.backbone is 'Backbone of the feature.';
comment on column feature_stat.split is 'Split whose rows were counted.';
comment on column feature_stat.feature_id is 'Position of the feature in the vector, from 0.';
comment on column feature_stat.feature_name is 'Name of its column in the feature files.';
comment on column feature_stat.n_images is 'Number of images.';
comment on column feature_stat.mean_value is 'Mean, in the unit of the feature.';
comment on column feature_stat.sd_value is 'Standard deviation (n - 1), in the unit of the feature; null below two images.';
comment on column feature_stat.min_value is 'Smallest value.';
comment on column feature_stat.quartile_1 is 'First quartile; see feature_quantile for exactness.';
comment on column feature_stat.median is 'Median; see feature_quantile for exactness.';
comment on column feature_stat.quartile_3 is 'Third quartile; see feature_quantile for exactness.';
comment on column feature_stat.max_value is 'Largest value.';
comment on column feature_stat.share_between_classes is 'Share of the variance that lies between the class means (eta squared), in [0, 1]; null for a constant feature.';
