-- grain: one row per (image, source, covariate) that has a value
-- reads: annotations/*.parquet, image
-- missing: an image without a value has no row; value null for texts, category null for numbers
-- units: the covariate's own
-- source: gapscope annotate writes one file a source; matching is etl/matching.py
create view annotation as
select
    image.image_id,
    image.split,
    image.path,
    image.class_id,
    parse_filename(attached.filename, true) as source,
    attached.name,
    attached.value,
    attached.category
from
    read_parquet('annotations/*.parquet', filename = true, hive_partitioning = false) as attached
inner join image on attached.split = image.split and attached.path = image.path;
comment on view annotation is 'One row per image and covariate: what else is known about the image.';
comment on column annotation.image_id is 'Identifier within this database.';
comment on column annotation.split is 'Split of the image.';
comment on column annotation.path is 'Path as the feature file has it.';
comment on column annotation.class_id is 'True class.';
comment on column annotation.source is 'Name under which the annotations were attached.';
comment on column annotation.name is 'Name of the covariate: a column of the file that was attached.';
comment on column annotation.value is 'Its number for this image, in the covariate''s own unit; null where it is a text.';
comment on column annotation.category is 'Its text for this image; null where it is a number.';
