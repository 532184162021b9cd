-- What golden backups are of. Whatever it says has been said in backups that are there: another format may
-- get more lines, at the end, and none is changed.
DO $$
BEGIN
  EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), E'it''s golden\nin two lines');
  EXECUTE format('ALTER DATABASE %I SET work_mem = %L', current_database(), '5MB');
END $$;

CREATE SCHEMA shop AUTHORIZATION golden_owner;
CREATE SCHEMA "Odd ""schema"".name";
GRANT USAGE ON SCHEMA shop TO golden_reader;
COMMENT ON SCHEMA shop IS 'what is sold';

CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'it''s "fine"', 'naïve 🙂');
CREATE TYPE shop.address AS (street text, number int, tags text[]);
CREATE DOMAIN shop.code AS text CHECK (VALUE ~ '^[A-Z]{2}[0-9]+$');
CREATE FUNCTION shop.twice(int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 * 2';
CREATE SEQUENCE shop.ticket START 100 INCREMENT -5 MINVALUE -1000 MAXVALUE 100 CYCLE;
CREATE SEQUENCE shop.untouched START 7;

CREATE TABLE shop.customer (
  id bigint GENERATED ALWAYS AS IDENTITY (START 1000 INCREMENT 10) PRIMARY KEY,
  name text NOT NULL CONSTRAINT named CHECK (name <> ''),
  mood shop.mood DEFAULT 'ok',
  home shop.address,
  favourite shop.code
);
ALTER TABLE shop.customer OWNER TO golden_owner;
GRANT SELECT ON shop.customer TO golden_reader;
COMMENT ON COLUMN shop.customer.name IS 'with a \ backslash';
CREATE TABLE shop.product (
  code shop.code PRIMARY KEY,
  price numeric(12, 2) NOT NULL,
  gross numeric GENERATED ALWAYS AS (price * 1.19) STORED,
  best bigint REFERENCES shop.customer ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED
);
ALTER TABLE shop.customer ADD CONSTRAINT favourite_exists FOREIGN KEY (favourite) REFERENCES shop.product;
CREATE TABLE shop.value (
  id int PRIMARY KEY, r real, d double precision, n numeric, raw bytea, day date, at timestamptz, pause interval,
  u uuid, ip inet, bits bit varying, j json, jb jsonb, ints int[], texts text[], span int4range, v varchar(20), c char(5)
);
CREATE TABLE shop.booking (room int, during tsrange, EXCLUDE USING gist (during WITH &&));
CREATE TABLE shop.event (at date NOT NULL, kind text NOT NULL, note text, PRIMARY KEY (at, kind)) PARTITION BY RANGE (at);
CREATE TABLE shop.event_2025 PARTITION OF shop.event FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE shop.event_2026 PARTITION OF shop.event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (kind);
CREATE TABLE shop.event_2026_a PARTITION OF shop.event_2026 FOR VALUES IN ('a', 'b');
CREATE TABLE shop.event_2026_rest PARTITION OF shop.event_2026 DEFAULT;
CREATE TABLE shop.animal (id int NOT NULL, name text);
CREATE TABLE shop.cat (lives int DEFAULT 9) INHERITS (shop.animal);
CREATE TABLE shop.no_columns ();
CREATE TABLE shop.empty (id int);
CREATE TABLE "Odd ""schema"".name"."two
lines; DROP SCHEMA shop; --" ("select" int, "a.b" text, "naïve 列" text);
CREATE INDEX customer_mood ON shop.customer (mood, lower(name)) WHERE mood <> 'sad';
CREATE VIEW shop.cheap AS SELECT code, price FROM shop.product WHERE price < 10;
CREATE MATERIALIZED VIEW shop.moods AS SELECT mood, count(*) AS people FROM shop.customer GROUP BY mood WITH NO DATA;
CREATE FUNCTION shop.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER keep BEFORE UPDATE ON shop.product FOR EACH ROW EXECUTE FUNCTION shop.keep();
ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.customer FOR SELECT TO golden_reader USING (name = 'me');

INSERT INTO shop.customer (name, mood, home)
SELECT 'name ' || i, (enum_range(NULL::shop.mood))[1 + i % 4], ROW('street ' || i, i, ARRAY['a,b', '"q"', NULL])::shop.address
FROM generate_series(1, 200) AS i;
INSERT INTO shop.customer (name) VALUES (E'tab\there'), (E'new\nline'), (E'back\\slash'), ('\N'), ('\.'), (E'\r\n'), ('NULL'), (' ');
INSERT INTO shop.product (code, price, best) SELECT 'AB' || i, i * 1.25, 1000 + 10 * i FROM generate_series(1, 100) AS i;
UPDATE shop.customer SET favourite = 'AB' || 1 + id % 100 WHERE id < 1500;
INSERT INTO shop.value (id) VALUES (0);
INSERT INTO shop.value VALUES
  (1, '-Infinity', 'NaN', 'NaN', '\x00ff5c0a27', 'infinity', '-infinity', '-1 year 2 mons -3 days 04:05:06.7',
   '00000000-0000-0000-0000-000000000000', '::1/64', B'10101', '{"a" :  1, "a": 2}', '{"b": [1, null, "\u00e9"]}',
   '[0:1]={1,NULL}', ARRAY['NULL', NULL, '', '{', '"', '\', ','], 'empty', '', 'ab'),
  (2, 1e-37, 0.1, 123456789012345678901234567890.5, '', '4713-01-01 BC', '2026-02-28 03:00:00.123456+00', 'P1Y2M3DT4H5M6S',
   'ffffffff-ffff-ffff-ffff-ffffffffffff', '10.0.0.0/8', B'', '[]', '"x"', '{}', '{}', '[1,5)', E'é\t', '');
INSERT INTO shop.booking SELECT i, tsrange('2026-01-01'::timestamp + i * interval '1 day', '2026-01-02'::timestamp + i * interval '1 day') FROM generate_series(1, 20) AS i;
INSERT INTO shop.event SELECT date '2025-07-01' + i, substr('abcd', 1 + i % 4, 1), 'note ' || i FROM generate_series(1, 365) AS i;
INSERT INTO shop.animal VALUES (1, 'bird');
INSERT INTO shop.cat SELECT i, 'cat ' || i FROM generate_series(2, 9) AS i;
INSERT INTO shop.no_columns SELECT FROM generate_series(1, 3);
INSERT INTO "Odd ""schema"".name"."two
lines; DROP SCHEMA shop; --" VALUES (1, 'x', '列');
SELECT nextval('shop.ticket') FROM generate_series(1, 17) \g /dev/null
REFRESH MATERIALIZED VIEW shop.moods;
SELECT lo_from_bytea(4242, decode(repeat('deadbeef', 2000), 'hex')) \g /dev/null
SELECT lo_from_bytea(4243, '') \g /dev/null
ALTER LARGE OBJECT 4242 OWNER TO golden_owner;
COMMENT ON LARGE OBJECT 4242 IS 'beef, it''s dead';
