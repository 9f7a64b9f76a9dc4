-- grain: one row per (backbone, feature)
-- reads: nothing; etl writes it
-- missing: none
-- units: -
-- source: header of the backbone's first file
-- the vectors are in feature."<backbone>" (image_id, vector float[d]); element feature_id + 1
create table feature_name (
    backbone varchar not null,
    feature_id integer not null,
    feature_name varchar not null
);
comment on table feature_name is 'One row per feature of a backbone; its values stand in feature."<backbone>".vector[feature_id + 1].';
comment on column feature_name.backbone is 'Name of the network, or other source, of the features.';
comment on column feature_name.feature_id is 'Position of the feature in the vector, from 0.';
comment on column feature_name.feature_name is 'Name of its column in the feature files.';
