-- grain: one row per (source, covariate, split with any value of it)
-- reads: annotation, image
-- missing: a split without any value has no row; moments null for texts, sd null for one number
-- units: the covariate's own; shares of 1
-- source: -
create view annotation_summary as
with
split_size as (
    select
        image.split,
        count(*) as n_images
    from image
    group by image.split
)

select
    annotation.source,
    annotation.name,
    annotation.split,
    count(*) as n_images,
    count(*) / any_value(split_size.n_images) as share_images,
    avg(annotation.value) as mean_value,
    stddev_samp(annotation.value) as sd_value,
    min(annotation.value) as min_value,
    max(annotation.value) as max_value,
    count(distinct annotation.category) as n_categories
from annotation
inner join split_size on annotation.split = split_size.split
group by annotation.source, annotation.name, annotation.split;
comment on view annotation_summary is 'One row per source, covariate and split: how many images have it, and how it spreads.';
comment on column annotation_summary.source is 'Name under which the annotations were attached.';
comment on column annotation_summary.name is 'Name of the covariate.';
comment on column annotation_summary.split is 'Split of the images.';
comment on column annotation_summary.n_images is 'Number of its images that have a value.';
comment on column annotation_summary.share_images is 'Their share of the split, in [0, 1].';
comment on column annotation_summary.mean_value is 'Mean of the numbers; null for texts.';
comment on column annotation_summary.sd_value is 'Their standard deviation, n − 1 in the denominator.';
comment on column annotation_summary.min_value is 'The least of them.';
comment on column annotation_summary.max_value is 'The greatest of them.';
comment on column annotation_summary.n_categories is 'Number of different texts; 0 for numbers.';
