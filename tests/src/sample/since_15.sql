CREATE TABLE app.nulls_alike (id int UNIQUE NULLS NOT DISTINCT, a int, b int,
  FOREIGN KEY (a) REFERENCES app.employee ON DELETE SET NULL (a));
CREATE VIEW app.as_invoker WITH (security_invoker = true) AS SELECT id FROM app.customer;
CREATE PUBLICATION sample_rows FOR TABLE app.customer (id, name) WHERE (id > 10);
CREATE PUBLICATION sample_schema FOR TABLES IN SCHEMA app;
