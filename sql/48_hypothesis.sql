-- grain: one row per registered hypothesis
-- reads: results/hypotheses.jsonl
-- missing: from scored_at on null where it was not tested yet; family null for diagnostics
-- units: fractions of accuracy
-- source: the service adds a record when a hypothesis is registered, another when it was scored
create view hypothesis as
with record as (
    select *
    from read_json(
        'results/hypotheses.jsonl',
        format = 'newline_delimited',
        ignore_errors = true,
        columns = {
            added_at: 'timestamp',
            kind: 'varchar',
            content: 'json',
            previous: 'varchar',
            sha256: 'varchar'
        }
    )
),

result as (
    select
        added_at,
        content ->> 'hypothesis' as hypothesis_id,
        content ->> 'model' as model,
        (content ->> '$.gap_change.estimate')::double as gap_change,
        (content ->> '$.gap_change.low')::double as gap_change_low,
        (content ->> '$.gap_change.high')::double as gap_change_high,
        (content ->> '$.target.difference.estimate')::double as target_change,
        (content ->> '$.reference.difference.estimate')::double as reference_change,
        (content ->> 'p_value')::double as p_value
    from record
    where kind = 'result'
)

select
    left(record.sha256, 12) as hypothesis_id,
    record.added_at as registered_at,
    record.content ->> 'title' as title,
    record.content ->> '$.baseline.model' as baseline,
    record.content ->> '$.refinement.kind' as refinement,
    record.content ->> 'use' as use,
    record.content ->> 'family' as family,
    record.content ->> 'reference' as reference,
    record.content ->> 'target' as target,
    record.content ->> 'images' as images,
    result.added_at as scored_at,
    result.model,
    result.gap_change,
    result.gap_change_low,
    result.gap_change_high,
    result.reference_change,
    result.target_change,
    result.p_value
from record
left join result on left(record.sha256, 12) = result.hypothesis_id
where record.kind = 'hypothesis'
order by record.added_at;
comment on view hypothesis is 'One row per registered hypothesis, with what its only score showed. Verdicts hang on the family: GET /hypotheses.';
comment on column hypothesis.hypothesis_id is 'The beginning of the record''s sha256.';
comment on column hypothesis.registered_at is 'When, UTC: before anything of it was scored.';
comment on column hypothesis.title is 'In the words of who registered it.';
comment on column hypothesis.baseline is 'Model that the refined head is held against.';
comment on column hypothesis.refinement is 'Kind of recipe.';
comment on column hypothesis.use is 'train, informed by the test sets, or test inputs (diagnostic).';
comment on column hypothesis.family is 'Hypotheses judged together by Holm''s method; null for diagnostics.';
comment on column hypothesis.reference is 'Test split 1.';
comment on column hypothesis.target is 'Test split 2.';
comment on column hypothesis.images is 'confirm: judged on the halves that no suggestion saw; all.';
comment on column hypothesis.scored_at is 'When, UTC; null where it was not tested yet.';
comment on column hypothesis.model is 'The refined head; null for diagnostics.';
comment on column hypothesis.gap_change is 'Gap refined minus gap of the baseline, a fraction of accuracy; below 0, it is smaller.';
comment on column hypothesis.gap_change_low is 'Lower end of its 95 % interval.';
comment on column hypothesis.gap_change_high is 'Upper end.';
comment on column hypothesis.reference_change is 'Accuracy refined minus baseline on the reference, a fraction.';
comment on column hypothesis.target_change is 'The same on the target.';
comment on column hypothesis.p_value is 'That the gap does not change, as sided, not adjusted for the family.';
