-- grain: one row per (model, test image)
-- reads: results/*/predictions.parquet
-- missing: nll null where unknown; confidence, is_in_top5 null where an import does not tell
-- units: probabilities; nll in nats
-- source: the service scores each test split once per model; or gapscope import-predictions
create view prediction as
select
    model,
    split,
    path,
    class_id,
    predicted_class_id,
    confidence,
    is_correct,
    is_in_top5,
    nll
from read_parquet('results/*/predictions.parquet');
comment on view prediction is 'One row per model and test image: what the model said.';
comment on column prediction.model is 'Name of the model.';
comment on column prediction.split is 'Test split.';
comment on column prediction.path is 'Path of the image; joins image on (split, path).';
comment on column prediction.class_id is 'True class.';
comment on column prediction.predicted_class_id is 'Class with the highest probability.';
comment on column prediction.confidence is 'That probability, in [0, 1]; null where an imported model came without.';
comment on column prediction.is_correct is 'Whether the predicted class is the true one.';
comment on column prediction.is_in_top5 is 'Whether the true class is among the five most probable; null where an imported model came without them.';
comment on column prediction.nll is 'Minus the natural log of the true class probability; null where the head does not know the class, and for imported models.';
