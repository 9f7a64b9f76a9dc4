-- grain: one row per image, that is per (split, path), shared by all backbones over it
-- reads: nothing; etl writes it
-- missing: none; an image without a path is named <split>/row-<n>, n from 0 in file order
-- units: -
-- source: path and label columns of the feature files
create table image (
    image_id bigint not null,
    split varchar not null,
    path varchar not null,
    class_id integer not null
);
comment on table image is 'One row per image: a path within a split.';
comment on column image.image_id is 'Identifier within this database; a reload may give others.';
comment on column image.split is 'Split to which the image belongs.';
comment on column image.path is 'Path as the feature file has it, unique within the split.';
comment on column image.class_id is 'True class: the label.';
