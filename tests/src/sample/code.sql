CREATE FUNCTION app.greet(name text DEFAULT 'you', VARIADIC more text[] DEFAULT '{}') RETURNS text
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = app, pg_temp COST 5 AS $body$
BEGIN
  -- a comment with $$ and 'quotes'
  RETURN E'hello\t' || name || array_to_string(more, ',');
END $body$;
REVOKE ALL ON FUNCTION app.greet FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.greet TO sample_reader;
COMMENT ON FUNCTION app.greet IS 'says hello';
CREATE FUNCTION app.pairs(OUT a int, OUT b text) RETURNS SETOF record LANGUAGE sql ROWS 2 AS 'VALUES (1, ''x''), (2, ''y'')';
CREATE FUNCTION app.as_table(n int) RETURNS TABLE (i int) LANGUAGE sql BEGIN ATOMIC SELECT generate_series(1, n); END;
CREATE FUNCTION app."odd (function"(anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION app.in_sample_language() RETURNS int LANGUAGE sample_plpgsql AS 'BEGIN RETURN 1; END';
CREATE PROCEDURE app.clear(INOUT rows int DEFAULT 0) LANGUAGE plpgsql AS 'BEGIN rows := 0; END';
CREATE FUNCTION app.plus(bigint, int) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN coalesce($1, 0) + coalesce($2, 0);
CREATE AGGREGATE app.total (int) (SFUNC = app.plus, STYPE = bigint, INITCOND = '0', COMBINEFUNC = int8pl, PARALLEL = SAFE);
CREATE AGGREGATE app.middle (float8 ORDER BY float8) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
COMMENT ON AGGREGATE app.total (int) IS 'a sum without nulls';

CREATE VIEW app.happy WITH (security_barrier) AS SELECT id, name FROM app.customer WHERE mood = 'happy' WITH LOCAL CHECK OPTION;
-- Each of the two needs the other's columns.
CREATE VIEW app.upper_view AS SELECT id, name::text AS name FROM app.happy;
CREATE VIEW app.grouped AS SELECT id, name, count(*) AS times FROM app.customer GROUP BY id;
CREATE RECURSIVE VIEW app.chain (id, depth) AS SELECT id, 1 FROM app.employee WHERE boss IS NULL
  UNION ALL SELECT e.id, c.depth + 1 FROM app.employee AS e JOIN chain AS c ON e.boss = c.id;
ALTER VIEW app.happy OWNER TO sample_owner;
ALTER VIEW app.happy ALTER COLUMN name SET DEFAULT 'from the view';
GRANT SELECT ON app.happy TO PUBLIC;
COMMENT ON VIEW app.happy IS 'the happy ones';
CREATE MATERIALIZED VIEW app.per_mood AS SELECT mood, count(*) AS people FROM app.customer GROUP BY mood WITH NO DATA;
CREATE UNIQUE INDEX per_mood_key ON app.per_mood (mood);
CREATE MATERIALIZED VIEW app.above AS SELECT sum(people) AS people FROM app.per_mood WITH NO DATA;
CREATE MATERIALIZED VIEW app.never_filled AS SELECT 1 AS one WITH NO DATA;

CREATE RULE no_delete AS ON DELETE TO app.typed DO INSTEAD NOTHING;
CREATE RULE insert_happy AS ON INSERT TO app.upper_view DO INSTEAD INSERT INTO app.customer (name, mood) VALUES (NEW.name, 'happy');
COMMENT ON RULE no_delete ON app.typed IS 'they stay';

CREATE TABLE app.audit (id bigint GENERATED ALWAYS AS IDENTITY, "table" text, operation text);
CREATE FUNCTION app.audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO app.audit ("table", operation) VALUES (TG_TABLE_NAME, TG_OP);
  RETURN NEW;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OF note ON app.employee FOR EACH ROW WHEN (NEW.note IS NOT NULL) EXECUTE FUNCTION app.audit_row('an argument', E'with\nnewline');
CREATE TRIGGER audit_statement AFTER DELETE ON app.employee REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION app.audit_row();
CREATE CONSTRAINT TRIGGER audit_late AFTER INSERT ON app.booking DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.audit_row();
CREATE TRIGGER audit_event BEFORE INSERT ON app.event FOR EACH ROW EXECUTE FUNCTION app.audit_row();
CREATE TRIGGER audit_view INSTEAD OF UPDATE ON app.grouped FOR EACH ROW EXECUTE FUNCTION app.audit_row();
CREATE TRIGGER "Odd trigger" BEFORE TRUNCATE ON app.cat EXECUTE FUNCTION app.audit_row();
ALTER TABLE app.booking DISABLE TRIGGER audit_late;
ALTER TABLE app.event_2025 DISABLE TRIGGER audit_event;
ALTER TABLE app.employee ENABLE ALWAYS TRIGGER audit_statement;
COMMENT ON TRIGGER audit ON app.employee IS 'watches';

ALTER TABLE app.customer ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.customer FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON app.customer FOR SELECT TO sample_reader USING (name = current_user);
CREATE POLICY "Odd policy" ON app.customer AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (true) WITH CHECK (mood <> 'sad');
COMMENT ON POLICY own_rows ON app.customer IS 'each their own';

CREATE PUBLICATION sample_all FOR ALL TABLES WITH (publish = 'insert, update');
CREATE PUBLICATION sample_some FOR TABLE app.customer, app.product, ONLY app.animal;
