-- grain: one row per image that came with predictions of a model, not with features
-- reads: nothing; etl writes it
-- missing: none; features may be loaded for such an image later, under the same path
-- units: -
-- source: gapscope import-predictions
create table added_image (image_id bigint not null);
comment on table added_image is 'One row per image that predictions named first: it stays when features of its split go.';
comment on column added_image.image_id is 'The image, as in the table image.';
