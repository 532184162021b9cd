CREATE TABLE app.computed (id int, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL, note text);
INSERT INTO app.computed (id, note) SELECT i, 'n' FROM generate_series(1, 100) AS i;
ALTER TABLE app.computed ADD CONSTRAINT note_is_there NOT NULL note NOT VALID;
ALTER TABLE app.computed ADD CONSTRAINT not_enforced CHECK (id > 1000) NOT ENFORCED;
CREATE TABLE app.price_at (id int, valid daterange, price int, PRIMARY KEY (id, valid WITHOUT OVERLAPS));
INSERT INTO app.price_at VALUES (1, '[2026-01-01,2026-02-01)', 5), (1, '[2026-02-01,2026-03-01)', 6);
CREATE TABLE app.sale (id int, valid daterange, FOREIGN KEY (id, PERIOD valid) REFERENCES app.price_at (id, PERIOD valid));
INSERT INTO app.sale VALUES (1, '[2026-01-15,2026-02-15)');
