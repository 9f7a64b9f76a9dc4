-- grain: one row per split
-- reads: image_file
-- missing: none
-- units: counts, bytes
-- source: -
create view image_file_summary as
select
    split,
    count(*) as n_images,
    count(*) filter (where status = 'found') as n_found,
    count(*) filter (where status = 'missing') as n_missing,
    count(*) filter (where status = 'ambiguous') as n_ambiguous,
    coalesce(sum(size_bytes), 0)::bigint as size_bytes
from image_file
group by split;
comment on view image_file_summary is 'One row per split: for how many images a file was found.';
comment on column image_file_summary.split is 'Name of the split.';
comment on column image_file_summary.n_images is 'Number of images, over all backbones.';
comment on column image_file_summary.n_found is 'Images with one file.';
comment on column image_file_summary.n_missing is 'Images without a file of their name under the roots.';
comment on column image_file_summary.n_ambiguous is 'Images for which several files fit; none was taken.';
comment on column image_file_summary.size_bytes is 'Bytes of the files that were found.';
