-- grain: one row per (split, backbone) part, and per split with images that came without features
-- reads: nothing; etl writes it
-- missing: backbone null where the images came with predictions alone
-- units: bytes, seconds, MB = 10^6 bytes
-- source: the load that read the part; n_rows_read = n_images + n_rejected
create table load_report (
    split varchar not null,
    backbone varchar,
    file varchar not null,
    sha256 varchar not null,
    size_bytes bigint not null,
    mtime_ns bigint not null,
    n_rows_read bigint not null,
    n_images bigint not null,
    n_rejected bigint not null,
    n_features integer not null,
    n_classes integer not null,
    seconds_s double not null,
    mb_per_s double not null,
    notes varchar[] not null,
    options varchar not null,
    loaded_at timestamp not null
);
comment on table load_report is 'What each loaded file held, and how its loading went. A split with images that the database knows from predictions alone has a row for them, without backbone.';
comment on column load_report.split is 'Split that the file became.';
comment on column load_report.backbone is 'Backbone whose features it holds; null: none, the images came with predictions.';
comment on column load_report.file is 'The file, as an absolute path at the time; without backbone, the last one that named new images.';
comment on column load_report.sha256 is 'Digest of all its bytes: identifies the data of this part.';
comment on column load_report.size_bytes is 'Size of the file in bytes.';
comment on column load_report.mtime_ns is 'Time of the last change of the file, nanoseconds since 1970.';
comment on column load_report.n_rows_read is 'Rows in the file.';
comment on column load_report.n_images is 'Rows kept.';
comment on column load_report.n_rejected is 'Rows left out: second mentions of a path with the same label.';
comment on column load_report.n_features is 'Number of features; 0 without backbone.';
comment on column load_report.n_classes is 'Number of classes that occur.';
comment on column load_report.seconds_s is 'Seconds from opening the file to its last row in the database.';
comment on column load_report.mb_per_s is 'Megabytes of the file per second.';
comment on column load_report.notes is 'What was passed over or repaired, in sentences.';
comment on column load_report.options is 'Options of the load that concern this part, as JSON.';
comment on column load_report.loaded_at is 'When, UTC.';
