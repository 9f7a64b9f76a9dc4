-- grain: one row per (backbone, split, feature, probability)
-- reads: nothing; etl writes it
-- missing: none
-- units: of the feature
-- source: linear between order statistics; of a train split a sample of 65,536 rows
create table feature_quantile (
    backbone varchar not null,
    split varchar not null,
    feature_id integer not null,
    probability double not null,
    value double not null
);
comment on table feature_quantile is 'Quantiles of each feature within a split.';
comment on column feature_quantile.backbone is 'Backbone of the feature.';
comment on column feature_quantile.split is 'Split whose rows were counted.';
comment on column feature_quantile.feature_id is 'Position of the feature in the vector, from 0.';
comment on column feature_quantile.probability is 'Share of rows at or below the value, in [0, 1].';
comment on column feature_quantile.value is 'The quantile, in the unit of the feature. Exact for test splits, and for train splits up to 65,536 rows; above, from a uniform sample of 65,536 rows, whose rank has a standard error of at most .002 (beyond 1,024 features, of 67 million values: at most .5 / sqrt(67108864 / features)).';
