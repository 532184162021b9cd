-- A small shop, made up on the spot.
CREATE TABLE customers (
    customer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    since date NOT NULL
);
CREATE TABLE products (
    product_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    price numeric(10, 2) NOT NULL CHECK (price > 0)
);
CREATE TABLE orders (
    order_id bigint GENERATED ALWAYS AS IDENTITY,
    customer_id bigint NOT NULL REFERENCES customers,
    product_id bigint NOT NULL REFERENCES products,
    quantity int NOT NULL,
    ordered_at timestamptz NOT NULL,
    note text,
    PRIMARY KEY (order_id, ordered_at)
) PARTITION BY RANGE (ordered_at);
CREATE TABLE orders_2025 PARTITION OF orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE orders_2026 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX ON orders (customer_id);

SELECT setseed(0.42) \g /dev/null
INSERT INTO customers (name, email, since)
SELECT 'Customer ' || n, 'c' || n || '@example.com', date '2020-01-01' + (n % 2000)
FROM generate_series(1, 20000) n;
INSERT INTO products (name, price)
SELECT 'Product ' || n, round((1 + random() * 500)::numeric, 2) FROM generate_series(1, 500) n;
INSERT INTO orders (customer_id, product_id, quantity, ordered_at, note)
SELECT 1 + n % 20000, 1 + n % 500, 1 + n % 9,
       timestamptz '2025-01-01 00:00+00' + n * interval '2 minutes',
       CASE n % 7 WHEN 0 THEN NULL WHEN 1 THEN E'gift\twrapped\nplease' ELSE md5(n::text) END
FROM generate_series(1, 400000) n;
CREATE MATERIALIZED VIEW turnover AS
SELECT date_trunc('month', ordered_at) AS month, sum(quantity * price) AS amount
FROM orders JOIN products USING (product_id) GROUP BY 1;
SELECT lo_from_bytea(0, convert_to(repeat('terms and conditions ', 5000), 'UTF8')) \g /dev/null
