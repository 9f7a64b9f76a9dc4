-- grain: one row per (backbone, split, class, feature)
-- reads: nothing; etl writes it in its one pass over the rows
-- missing: none; a class absent from a split has no row
-- units: of the feature; m2 in its square
-- source: Chan, Golub and LeVeque (1983): parts of a split add up
create table class_moment (
    backbone varchar not null,
    split varchar not null,
    class_id integer not null,
    feature_id integer not null,
    n_images bigint not null,
    mean_value double not null,
    m2 double not null,
    min_value double not null,
    max_value double not null
);
comment on table class_moment is 'Moments that add up, from which the views compute every mean and spread.';
comment on column class_moment.backbone is 'Backbone of the feature.';
comment on column class_moment.split is 'Split whose rows were counted.';
comment on column class_moment.class_id is 'True class of the rows.';
comment on column class_moment.feature_id is 'Position of the feature in the vector, from 0.';
comment on column class_moment.n_images is 'Number of images.';
comment on column class_moment.mean_value is 'Mean of the feature, in its own unit.';
comment on column class_moment.m2 is 'Sum of squared deviations from the mean, in the squared unit.';
comment on column class_moment.min_value is 'Smallest value.';
comment on column class_moment.max_value is 'Largest value.';
