-- Roles belong to the cluster, so another database may have made them, perhaps at this moment.
DO $$
DECLARE role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['sample_owner', 'sample_reader', 'sample_writer', 'sample_O''Dd "role"'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I', role);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
  END LOOP;
END $$;
DO $$
BEGIN
  GRANT sample_reader TO sample_writer;
EXCEPTION WHEN unique_violation OR SQLSTATE 'XX000' THEN NULL; -- the same grant at the same moment
END $$;

-- Settings, grants and a comment of the database itself; no dump of parts carries them.
DO $$
DECLARE name text := current_database();
BEGIN
  EXECUTE format('COMMENT ON DATABASE %I IS %L', name, E'it''s a "sample"\nin two lines');
  EXECUTE format('ALTER DATABASE %I SET work_mem = %L', name, '5MB');
  EXECUTE format('ALTER DATABASE %I SET search_path = %s', name, '"$user", public, app');
  EXECUTE format('ALTER ROLE sample_reader IN DATABASE %I SET statement_timeout = %L', name, '1h');
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO sample_reader', name);
END $$;
SET search_path = public;

CREATE SCHEMA app AUTHORIZATION sample_owner;
CREATE SCHEMA ext;
CREATE SCHEMA empty;
CREATE SCHEMA "Odd schema.with ""quotes""";
COMMENT ON SCHEMA app IS 'what an application has';
GRANT USAGE ON SCHEMA app TO sample_reader;
GRANT ALL ON SCHEMA app TO sample_writer WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE sample_owner IN SCHEMA app GRANT SELECT ON TABLES TO sample_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE sample_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE sample_owner GRANT USAGE ON SEQUENCES TO sample_writer;

CREATE EXTENSION hstore SCHEMA ext;
CREATE EXTENSION citext;
CREATE EXTENSION ltree SCHEMA ext;
CREATE EXTENSION pgcrypto SCHEMA ext;
CREATE EXTENSION pg_trgm SCHEMA ext;
CREATE EXTENSION btree_gist SCHEMA ext;
CREATE EXTENSION file_fdw SCHEMA ext;
CREATE EXTENSION postgres_fdw SCHEMA ext;
COMMENT ON EXTENSION hstore IS 'with a comment of our own';
