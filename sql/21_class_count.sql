-- grain: one row per (split, class that occurs in it)
-- reads: image, class
-- missing: a class absent from a split has no row
-- units: counts, shares of 1
-- source: -
create view class_count as
select
    image.split,
    image.class_id,
    class.class_name,
    count(*) as n_images,
    count(*) / sum(count(*)) over (partition by image.split) as share_images
from image
inner join class on image.class_id = class.class_id
group by image.split, image.class_id, class.class_name;
comment on view class_count is 'One row per split and class: how many images.';
comment on column class_count.split is 'Name of the split.';
comment on column class_count.class_id is 'Class.';
comment on column class_count.class_name is 'Name of the class.';
comment on column class_count.n_images is 'Number of images of the class in the split, over all backbones.';
comment on column class_count.share_images is 'Their share of the split, in [0, 1].';
