CREATE TABLE app.squeezed (id int, note text STORAGE EXTENDED COMPRESSION lz4);
INSERT INTO app.squeezed SELECT i, repeat('squeeze ', 1000) FROM generate_series(1, 50) AS i;
CREATE FUNCTION app.nullable(text) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN CASE WHEN $1 IS JSON THEN $1::jsonb END;
