-- grain: one row per (backbone, split, class, feature)
-- reads: class_moment, class, feature_name
-- missing: sd null below two images; a class absent from a split has no row
-- units: of the feature
-- source: -
create view class_feature_stat as
with feature_list as (
    select
        backbone,
        list(feature_name order by feature_id) as feature_names
    from feature_name
    group by backbone
),

part as (
    -- joined class by class and unpacked last: a join of a million short rows takes far longer
    select
        m.backbone,
        m.split,
        m.class_id,
        class.class_name,
        m.n_images,
        (generate_subscripts(m.mean_values, 1) - 1)::integer as feature_id,
        unnest(f.feature_names) as feature_name,
        unnest(m.mean_values) as mean_value,
        unnest(m.m2_values) as m2,
        unnest(m.min_values) as min_value,
        unnest(m.max_values) as max_value
    from class_moment as m
    inner join class on m.class_id = class.class_id
    inner join feature_list as f on m.backbone = f.backbone
)

select
    backbone,
    split,
    class_id,
    class_name,
    feature_id,
    feature_name,
    n_images,
    mean_value,
    sqrt(m2 / nullif(n_images - 1, 0)) as sd_value,
    min_value,
    max_value
from part;
comment on view class_feature_stat is 'One row per backbone, split, class and feature.';
comment on column class_feature_stat.backbone is 'Backbone of the feature.';
comment on column class_feature_stat.split is 'Split whose rows were counted.';
comment on column class_feature_stat.class_id is 'True class of the rows.';
comment on column class_feature_stat.class_name is 'Name of the class.';
comment on column class_feature_stat.feature_id is 'Position of the feature in the vector, from 0.';
comment on column class_feature_stat.feature_name is 'Name of its column in the feature files.';
comment on column class_feature_stat.n_images is 'Number of images.';
comment on column class_feature_stat.mean_value is 'Mean, in the unit of the feature.';
comment on column class_feature_stat.sd_value is 'Standard deviation (n - 1), in the unit of the feature; null below two images.';
comment on column class_feature_stat.min_value is 'Smallest value.';
comment on column class_feature_stat.max_value is 'Largest value.';
