CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'it''s "fine"', 'naïve 🙂');
ALTER TYPE app.mood ADD VALUE 'happy' AFTER 'ok';
CREATE TYPE app.address AS (street text, "house no." int, tags text[]);
COMMENT ON COLUMN app.address.street IS 'a comment on an attribute';
CREATE TYPE app.span AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = app.spans);
CREATE DOMAIN app.positive AS int DEFAULT 1 CONSTRAINT over_zero CHECK (VALUE > 0);
CREATE DOMAIN app.code AS text COLLATE "C" NOT NULL CHECK (VALUE ~ '^[A-Z]{2}\d+$');
ALTER DOMAIN app.positive ADD CONSTRAINT below_million CHECK (VALUE < 1000000) NOT VALID;
COMMENT ON DOMAIN app.code IS 'two letters, then digits';
COMMENT ON CONSTRAINT over_zero ON DOMAIN app.positive IS 'zero is no amount';
CREATE TYPE app.shell;

CREATE COLLATION app.bytewise (provider = libc, locale = 'C');
CREATE COLLATION app.copied FROM "C";

-- A type of our own, with its input and output functions in place.
CREATE TYPE app.label;
CREATE FUNCTION app.label_in(cstring) RETURNS app.label LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION app.label_out(app.label) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE app.label (INPUT = app.label_in, OUTPUT = app.label_out, LIKE = text);
CREATE CAST (app.label AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (text AS app.label) WITHOUT FUNCTION AS ASSIGNMENT;
COMMENT ON CAST (app.label AS text) IS 'the same bytes';

CREATE FUNCTION app.address_text(app.address) RETURNS text LANGUAGE sql IMMUTABLE
  RETURN ($1).street || ' ' || ($1)."house no.";
CREATE CAST (app.address AS text) WITH FUNCTION app.address_text(app.address);

CREATE FUNCTION app.near(float8, float8) RETURNS boolean LANGUAGE sql IMMUTABLE
  RETURN abs($1 - $2) < 0.001;
CREATE OPERATOR app.=~= (LEFTARG = float8, RIGHTARG = float8, FUNCTION = app.near, COMMUTATOR = OPERATOR(app.=~=));
COMMENT ON OPERATOR app.=~= (float8, float8) IS 'nearly the same';

CREATE FUNCTION app.compare_backwards(int, int) RETURNS int LANGUAGE sql IMMUTABLE RETURN btint4cmp($2, $1);
CREATE OPERATOR FAMILY app.backwards_family USING btree;
CREATE OPERATOR CLASS app.backwards FOR TYPE int USING btree FAMILY app.backwards_family AS
  OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 app.compare_backwards(int, int);

CREATE TEXT SEARCH DICTIONARY app.plain_words (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION app.words (COPY = pg_catalog.simple);
ALTER TEXT SEARCH CONFIGURATION app.words ALTER MAPPING FOR asciiword WITH app.plain_words, english_stem;
COMMENT ON TEXT SEARCH CONFIGURATION app.words IS 'without the common ones';
CREATE TEXT SEARCH TEMPLATE app.template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH PARSER app.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);

CREATE CONVERSION app.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE ACCESS METHOD sample_heap TYPE TABLE HANDLER heap_tableam_handler;
-- A dump names a language's functions only if they are dumped as well.
CREATE FUNCTION app.sample_handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION app.sample_inline(internal) RETURNS void LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION app.sample_validator(oid) RETURNS void LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE LANGUAGE sample_plpgsql HANDLER app.sample_handler INLINE app.sample_inline VALIDATOR app.sample_validator;
CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));

CREATE FOREIGN DATA WRAPPER sample_wrapper OPTIONS (note 'does nothing');
CREATE SERVER sample_remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'no''where');
CREATE USER MAPPING FOR sample_reader SERVER sample_remote OPTIONS (user 'x', password 'secret '' quoted');
GRANT USAGE ON FOREIGN SERVER sample_remote TO sample_writer;
CREATE FOREIGN TABLE app.remote (id int NOT NULL, note text OPTIONS (column_name 'other')) SERVER sample_remote OPTIONS (table_name 'there');
COMMENT ON FOREIGN TABLE app.remote IS 'nobody answers';
