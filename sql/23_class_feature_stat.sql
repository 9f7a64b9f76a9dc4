-- grain: one row per (backbone, split, class, feature)
-- reads: class_moment, class, feature_name
-- missing: sd null below two images; a class absent from a split has no row
-- units: of the feature
-- source: -
create view class_feature_stat as
select
    part.backbone,
    part.split,
    part.class_id,
    class.class_name,
    part.feature_id,
    feature_name.feature_name,
    part.n_images,
    part.mean_value,
    sqrt(part.m2 / nullif(part.n_images - 1, 0)) as sd_value,
    part.min_value,
    part.max_value
from class_moment as part
inner join class on part.class_id = class.class_id
inner join feature_name
    on part.backbone = feature_name.backbone and part.feature_id = feature_name.feature_id;
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
