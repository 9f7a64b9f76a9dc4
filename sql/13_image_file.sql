-- grain: one row per image
-- reads: images/*.parquet, image
-- missing: root, file and size_bytes null where no file, or no single one, was found
-- units: bytes
-- source: gapscope link-images; matching is etl/matching.py
create view image_file as
select
    image.image_id,
    image.split,
    image.path,
    linked.root,
    linked.file,
    linked.n_bytes as size_bytes,
    case
        when linked.file is not null then 'found'
        when linked.path is not null then 'ambiguous'
        else 'missing'
    end as status
from image
left join read_parquet('images/*.parquet', hive_partitioning = false) as linked
    on image.split = linked.split and image.path = linked.path;
comment on view image_file is 'One row per image: the file that shows it.';
comment on column image_file.image_id is 'Identifier within this database.';
comment on column image_file.split is 'Split of the image.';
comment on column image_file.path is 'Path as the feature file has it.';
comment on column image_file.root is 'Folder under which the file was found, absolute and without links; null where there is none.';
comment on column image_file.file is 'The file, relative to root; null where there is none.';
comment on column image_file.size_bytes is 'Its size in bytes when it was found.';
comment on column image_file.status is 'found; missing: no file has this name; ambiguous: several fit, none was taken.';
