-- grain: one row per (split, backbone), and per split with images that came without features
-- reads: load_report, split
-- missing: backbone null for images that came with predictions alone
-- units: counts
-- source: the load reports
create view split_summary as
select
    load_report.split,
    split.role,
    load_report.backbone,
    load_report.n_images,
    load_report.n_classes,
    load_report.n_features,
    split.is_reference
from load_report
inner join split on load_report.split = split.split
order by split.load_order, load_report.backbone nulls last;
comment on view split_summary is 'One row per split and backbone: how much data there is.';
comment on column split_summary.split is 'Name of the split.';
comment on column split_summary.role is 'train or test.';
comment on column split_summary.backbone is 'Backbone of the features; null: images that came with predictions, without features.';
comment on column split_summary.n_images is 'Number of images with features of this backbone; without backbone, of those that came so.';
comment on column split_summary.n_classes is 'Number of classes that occur among them.';
comment on column split_summary.n_features is 'Length of the feature vector; 0 without backbone.';
comment on column split_summary.is_reference is 'True for test set 1, the default reference of a gap.';
