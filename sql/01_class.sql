-- grain: one row per class
-- reads: nothing; etl writes it
-- missing: superclass null where none was given; without a class-name file the name is the number
-- units: -
-- source: labels of all files; names and superclasses from --classes
create table class (
    class_id integer primary key,
    class_name varchar not null,
    superclass varchar
);
comment on table class is 'One row per class that occurs in a label or in the class-name file.';
comment on column class.class_id is 'The label: a whole number from 0.';
comment on column class.class_name is 'Name for people; the number itself where no names were given.';
comment on column class.superclass is 'Group of classes that it belongs to; null where none was given.';
