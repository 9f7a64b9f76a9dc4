-- grain: one row per split
-- reads: nothing; etl writes it
-- missing: none
-- units: -
-- source: file names or --split; roles by name: train trains, all others test
create table split (
    split varchar primary key,
    role varchar not null check (role in ('train', 'test')),
    is_reference boolean not null,
    load_order integer not null
);
comment on table split is 'One row per split: a named set of images with one role.';
comment on column split.split is 'Name of the split, such as train, val, v2.';
comment on column split.role is 'train: may teach a head; test: never takes part in training or in any choice.';
comment on column split.is_reference is 'True for test set 1, from which a gap is counted by default.';
comment on column split.load_order is 'Order in which the splits were first loaded, from 0.';
