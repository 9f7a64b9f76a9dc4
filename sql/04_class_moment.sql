-- grain: one row per (backbone, split, class)
-- reads: nothing; etl writes it in its one pass over the rows
-- missing: none; a class absent from a split has no row
-- units: of the feature; m2 in its square
-- source: Welford (1962); Chan, Golub and LeVeque (1983): parts of a split add up
create table class_moment (
    backbone varchar not null,
    split varchar not null,
    class_id integer not null,
    n_images bigint not null,
    mean_values double[] not null,
    m2_values double[] not null,
    min_values double[] not null,
    max_values double[] not null
);
comment on table class_moment is 'Moments that add up, from which the views compute every mean and spread: a list each, feature by feature.';
comment on column class_moment.backbone is 'Backbone of the features.';
comment on column class_moment.split is 'Split whose rows were counted.';
comment on column class_moment.class_id is 'True class of the rows.';
comment on column class_moment.n_images is 'Number of images.';
comment on column class_moment.mean_values is 'Means of the features, each in its own unit.';
comment on column class_moment.m2_values is 'Sums of squared deviations from the mean, in squared units.';
comment on column class_moment.min_values is 'Smallest values.';
comment on column class_moment.max_values is 'Largest values.';
