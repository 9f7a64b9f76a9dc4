-- grain: one row per (backbone, split, feature)
-- reads: nothing; etl adds up class_moment, once, since every statistic of a feature needs the sums
-- missing: none
-- units: of the feature; m2 in its square
-- source: Chan, Golub and LeVeque (1983), eq. 2.1, over the classes
create table feature_moment (
    backbone varchar not null,
    split varchar not null,
    feature_id integer not null,
    n_images bigint not null,
    mean_value double not null,
    m2_within double not null,
    m2_between double not null,
    min_value double not null,
    max_value double not null
);
comment on table feature_moment is 'Moments of each feature over all classes of a split.';
comment on column feature_moment.backbone is 'Backbone of the feature.';
comment on column feature_moment.split is 'Split whose rows were counted.';
comment on column feature_moment.feature_id is 'Position of the feature in the vector, from 0.';
comment on column feature_moment.n_images is 'Number of images.';
comment on column feature_moment.mean_value is 'Mean over the images, in the unit of the feature.';
comment on column feature_moment.m2_within is 'Sum of squared deviations from the mean of the own class, in the squared unit.';
comment on column feature_moment.m2_between is 'Sum of squared deviations of the class means from the mean, image by image, in the squared unit.';
comment on column feature_moment.min_value is 'Smallest value.';
comment on column feature_moment.max_value is 'Largest value.';
