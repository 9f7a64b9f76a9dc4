-- grain: one row per (model, candidate): a setting of a head that its training tried
-- reads: results/*/model.json
-- missing: head, params, n_fit and note null in cards of before heads were compared
-- units: shares of 1, nats, counts
-- source: held-out train rows; the service writes them into the card
create view candidate as
with
card as (
    select
        model,
        unnest(validation.candidates) as tried
    from read_json(
        'results/*/model.json',
        format = 'auto',
        columns = {
            model: 'varchar',
            validation: 'struct(candidates struct(
                head varchar, params json, top1 double, nll double,
                temperature double, n_fit bigint, note varchar
            )[])'
        }
    )
)

select
    card.model,
    card.tried.head,
    card.tried.params,
    card.tried.top1,
    card.tried.nll,
    card.tried.temperature,
    card.tried.n_fit,
    card.tried.note
from card;
comment on view candidate is 'One row per model and setting that its training tried, on train rows alone; models not trained here have none.';
comment on column candidate.model is 'Name of the model that came of the training.';
comment on column candidate.head is 'Kind of head that was tried.';
comment on column candidate.params is 'Its hyper-parameters, JSON; of an ensemble, its members and their weights.';
comment on column candidate.top1 is 'Accuracy on train rows that it was not fitted on, a share of 1.';
comment on column candidate.nll is 'Mean -log probability of their labels, nats, calibrated on other rows.';
comment on column candidate.temperature is 'By which its scores are divided to be calibrated.';
comment on column candidate.n_fit is 'Rows that it was fitted on; fewer than the others where it was tried on a sample.';
comment on column candidate.note is 'What users should know of the fit, empty where there is nothing.';
