-- grain: one row per image
-- reads: image, split, class
-- missing: none
-- units: -
-- source: the feature files
create view labelled_image as
select
    image.image_id,
    image.split,
    split.role,
    image.path,
    image.class_id,
    class.class_name
from image
inner join split on image.split = split.split
inner join class on image.class_id = class.class_id;
comment on view labelled_image is 'One row per image with its role and the name of its class.';
comment on column labelled_image.image_id is 'Identifier within this database.';
comment on column labelled_image.split is 'Split of the image.';
comment on column labelled_image.role is 'train or test.';
comment on column labelled_image.path is 'Path as the feature file has it.';
comment on column labelled_image.class_id is 'True class.';
comment on column labelled_image.class_name is 'Name of the true class.';
