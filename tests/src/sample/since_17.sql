GRANT MAINTAIN ON app.customer TO sample_writer;
CREATE COLLATION app.built_in (provider = builtin, locale = 'C.UTF-8');
CREATE TABLE app.sorted (t text COLLATE app.built_in PRIMARY KEY);
INSERT INTO app.sorted VALUES ('ä'), ('Z'), ('a');
CREATE EVENT TRIGGER sample_login ON login EXECUTE FUNCTION app.watch_ddl();
ALTER EVENT TRIGGER sample_login DISABLE;
