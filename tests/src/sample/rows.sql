INSERT INTO app.customer (name, email, mood, home, attributes, path)
SELECT 'name ' || i, CASE WHEN i % 10 <> 0 THEN 'User' || i || '@Example.org' END,
       (enum_range(NULL::app.mood))[1 + i % 5], ROW('street ' || i, i, ARRAY['a,b', '"q"', NULL])::app.address,
       ext.hstore('key "' || i, CASE WHEN i % 3 = 0 THEN NULL ELSE 'v' || i END), ('top.n' || i)::ext.ltree
FROM generate_series(1, 3000) AS i;
INSERT INTO app.customer (name) VALUES (E'tab\there'), (E'new\nline'), (E'back\\slash'), ('\N'), ('\.'), (E'\r\n'), ('NULL'), (E'\x01\x7f'), ('列 🙂 é'), (' ');
INSERT INTO app.product (code, price, best_customer) SELECT 'AB' || i, i * 1.25, i FROM generate_series(1, 500) AS i;
UPDATE app.customer SET favourite = 1000 + 10 * (id % 500) WHERE id <= 500;
-- Bosses come after those who work for them.
INSERT INTO app.employee SELECT i, NULL, CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'note ' || i END FROM generate_series(1, 300) AS i;
UPDATE app.employee SET boss = id + 1 WHERE id < 300;
INSERT INTO app.booking SELECT i, tstzrange('2026-01-01Z', '2026-01-02Z', '[)') FROM generate_series(1, 50) AS i;
INSERT INTO app.empty_columns SELECT FROM generate_series(1, 7);
INSERT INTO app.unlogged SELECT i, 'volatile ' || i FROM generate_series(1, 100) AS i;
INSERT INTO app.typed VALUES ('a', 1, '{x}');
INSERT INTO app.on_method SELECT generate_series(1, 10);
INSERT INTO app.dropped_column (a, c) SELECT i, 'c' || i FROM generate_series(1, 20) AS i;
INSERT INTO app.animal VALUES (1, 'bird');
INSERT INTO app.cat (id, name) SELECT i, 'cat ' || i FROM generate_series(2, 20) AS i;
INSERT INTO app.event (at, kind, note)
SELECT date '2024-06-01' + i, substr('abcd', 1 + i % 4, 1), 'note ' || i FROM generate_series(1, 1500) AS i;
INSERT INTO app.bucket SELECT i, md5(i::text) FROM generate_series(1, 400) AS i;
INSERT INTO app.in_bucket SELECT i FROM generate_series(1, 400, 3) AS i;
INSERT INTO app.by_mood SELECT (enum_range(NULL::app.mood))[1 + i % 5], i FROM generate_series(1, 100) AS i;
INSERT INTO "Odd schema.with ""quotes"""."Table with spaces" SELECT i, 'a', 'b', 'c', 'd', 'e', 'f' FROM generate_series(1, 10) AS i;
INSERT INTO "Odd schema.with ""quotes"""."dbname=postgres" VALUES (1);
INSERT INTO "Odd schema.with ""quotes"""."two
lines" VALUES (2);
INSERT INTO "Odd schema.with ""quotes"""."it's; DROP SCHEMA app CASCADE; --" ("ID") VALUES (3), (4);
INSERT INTO "Odd schema.with ""quotes"""."*" VALUES (5);
INSERT INTO "Odd schema.with ""quotes"""."таблица" VALUES (6);
INSERT INTO "Odd schema.with ""quotes"""."a_name_as_long_as_a_name_may_be_in_postgresql_sixty_three_bytes" VALUES (7);

INSERT INTO app.everything (id) VALUES (0);
INSERT INTO app.everything VALUES (
  1, true, -32768, -9223372036854775808, 'NaN', '-Infinity', 'NaN', 12.34, E'a\nb\tc\\d''"', '', 'ab', '\x00ff5c0a27',
  'infinity', '-infinity', '2026-02-28 03:00Z', '24:00', '23:59:59.999999+14', '-1 year 2 mons -3 days 04:05:06.7',
  '00000000-0000-0000-0000-000000000000', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'',
  '{"a" :  1, "a": 2}', '{"b": [1, null, "\u00e9"], "a": 1e3}', '<a>&amp;<b/></a>', '$.a[*] ? (@ > 1)', '{}', '[0:1][-1:0]={{1,2},{3,NULL}}',
  ARRAY['NULL', NULL, '', '{', '"', '\', ','], 'empty', '{[2026-01-01,2026-01-05),[2026-02-01,)}', '[0.1,0.2)', '{[1,2),[3,4]}',
  ARRAY['it''s "fine"', NULL]::app.mood[], 'a label', 7, 'a:1A fat:2B,4C', 'fat & (rat | !cat)', '(1e300,-0)', '{1,2,3}', '[(0,0),(1,1)]',
  '(1,1),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(0,0),1.5>', '16/B374D848', 4294967295, 'pg_class', 'a=>1,b=>NULL',
  ARRAY[ROW('x', NULL, NULL), NULL]::app.address[]
) ON CONFLICT DO NOTHING;
INSERT INTO app.everything (id, t, raw, n, d, jb)
SELECT i, repeat(md5(i::text), i % 40), decode(md5(i::text), 'hex'), (i * 1e-7)::numeric, i / 3.0, jsonb_build_object('i', i, 's', md5(i::text))
FROM generate_series(2, 1500) AS i;
-- One row of a megabyte that does not compress, and one that does.
INSERT INTO app.everything (id, t) SELECT 2000, string_agg(md5(i::text), '') FROM generate_series(1, 32768) AS i;
INSERT INTO app.everything (id, t, raw) SELECT 2001, repeat(E'line\n', 210000), decode(repeat('00', 500000), 'hex');

-- What holds for new rows only.
ALTER TABLE app.employee ADD CONSTRAINT note_is_short CHECK (length(note) < 5) NOT VALID;
ALTER TABLE app.in_bucket ADD CONSTRAINT even_too FOREIGN KEY (id) REFERENCES app.employee NOT VALID;

SELECT nextval('app.counter') FROM generate_series(1, 17) \g /dev/null
SELECT setval('app.product_other_seq', 77777, false) \g /dev/null
REFRESH MATERIALIZED VIEW app.per_mood;
REFRESH MATERIALIZED VIEW app.above;

SELECT lo_from_bytea(424242, decode(repeat('deadbeef', 20000), 'hex')) \g /dev/null
SELECT lo_from_bytea(424243, '') \g /dev/null
SELECT lo_from_bytea(424244, 'owned by another') \g /dev/null
COMMENT ON LARGE OBJECT 424242 IS 'beef, it''s dead';
ALTER LARGE OBJECT 424244 OWNER TO sample_owner;
GRANT SELECT ON LARGE OBJECT 424242 TO sample_reader;
CREATE TABLE app.with_lob (id int, content oid);
INSERT INTO app.with_lob VALUES (1, 424242);

-- Last, so that it does not see the statements above. It must do no harm to a restore.
CREATE FUNCTION app.watch_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM tg_tag; END';
CREATE EVENT TRIGGER sample_watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION app.watch_ddl();
CREATE EVENT TRIGGER sample_drop ON sql_drop EXECUTE FUNCTION app.watch_ddl();
ALTER EVENT TRIGGER sample_drop DISABLE;
COMMENT ON EVENT TRIGGER sample_watch IS 'watches';
ANALYZE app.customer;
