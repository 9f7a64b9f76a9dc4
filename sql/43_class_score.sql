-- grain: one row per (model, test split, class)
-- reads: prediction, class
-- missing: a class absent from a split has no row
-- units: counts, shares of 1
-- source: -
create view class_score as
select
    prediction.model,
    prediction.split,
    prediction.class_id,
    class.class_name,
    count(*) as n_images,
    count(*) filter (where prediction.is_correct) as n_correct,
    avg(prediction.is_correct::integer) as accuracy
from prediction
inner join class on prediction.class_id = class.class_id
group by prediction.model, prediction.split, prediction.class_id, class.class_name;
comment on view class_score is 'One row per model, test split and class: its accuracy.';
comment on column class_score.model is 'Name of the model.';
comment on column class_score.split is 'Test split.';
comment on column class_score.class_id is 'True class.';
comment on column class_score.class_name is 'Name of the class.';
comment on column class_score.n_images is 'Number of images.';
comment on column class_score.n_correct is 'Number that the model has right.';
comment on column class_score.accuracy is 'Their share, in [0, 1].';
