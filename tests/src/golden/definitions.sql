-- What is defined, one thing a line, in words that all majors have alike.
SET search_path = pg_catalog;
WITH spaces AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
rel AS (
  SELECT c.*, format('%I.%I', s.nspname, c.relname) AS shown FROM pg_class AS c JOIN spaces AS s ON s.oid = c.relnamespace
)
SELECT json_build_array(what, says) FROM (
  SELECT 'schema ' || nspname AS what, pg_get_userbyid(nspowner) || ' ' || coalesce(nspacl::text, '-') AS says
  FROM spaces JOIN pg_namespace USING (oid, nspname) WHERE nspname <> 'public' -- whose owner is the server's choice
  UNION ALL SELECT 'relation ' || shown, relkind::text || ' ' || pg_get_userbyid(relowner) || ' ' || relrowsecurity
    || coalesce(' ' || pg_get_partkeydef(oid), '') || coalesce(' ' || pg_get_expr(relpartbound, oid), '') FROM rel
  UNION ALL SELECT 'column ' || shown || '.' || attname, attnum || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull
    || ' ' || attidentity::text || attgenerated::text || coalesce(' ' || pg_get_expr(adbin, adrelid), '')
    || coalesce(' -- ' || col_description(rel.oid, attnum), '')
  FROM rel JOIN pg_attribute AS a ON a.attrelid = rel.oid LEFT JOIN pg_attrdef AS d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
  WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm', 'c')
  UNION ALL SELECT 'constraint ' || conname || ' of ' || coalesce(shown, contypid::regtype::text), pg_get_constraintdef(k.oid)
  FROM pg_constraint AS k JOIN spaces AS s ON s.oid = k.connamespace LEFT JOIN rel ON rel.oid = conrelid WHERE contype <> 'n'
  UNION ALL SELECT 'index ' || shown, pg_get_indexdef(oid) FROM rel WHERE relkind IN ('i', 'I')
  UNION ALL SELECT 'sequence ' || shown, q.seqtypid::regtype || ' ' || concat_ws(' ', seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle)
  FROM rel JOIN pg_sequence AS q ON q.seqrelid = rel.oid
  UNION ALL SELECT 'trigger ' || tgname, pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN rel ON rel.oid = tgrelid WHERE NOT tgisinternal
  UNION ALL SELECT 'policy ' || polname, shown || ' ' || polcmd::text || ' ' || polroles::regrole[]::text || ' ' || pg_get_expr(polqual, polrelid)
  FROM pg_policy JOIN rel ON rel.oid = polrelid
  UNION ALL SELECT 'function ' || p.oid::regprocedure, prosrc || ' ' || provolatile::text || proisstrict
  FROM pg_proc AS p JOIN spaces AS s ON s.oid = p.pronamespace
  UNION ALL SELECT 'enum ' || enumtypid::regtype, string_agg(enumlabel, ', ' ORDER BY enumsortorder) FROM pg_enum GROUP BY enumtypid
  UNION ALL SELECT 'large object ' || oid, coalesce(obj_description(oid, 'pg_largeobject'), '-') FROM pg_largeobject_metadata
  UNION ALL SELECT 'setting', unnest(setconfig) FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND setrole = 0
) AS all_of_them ORDER BY what COLLATE "C", says COLLATE "C";
