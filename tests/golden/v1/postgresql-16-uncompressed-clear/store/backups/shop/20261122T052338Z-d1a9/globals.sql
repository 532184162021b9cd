--
-- PostgreSQL database cluster dump
--

\restrict ldaF6Ei0w91uKTvVYiYeJS8uX31zKmMqu1jfpWaFOIPRShenUdzuFPh9ojKj670

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

--
-- Roles
--

CREATE ROLE golden_owner;
ALTER ROLE golden_owner WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE golden_reader;
ALTER ROLE golden_reader WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;

--
-- User Configurations
--








\unrestrict ldaF6Ei0w91uKTvVYiYeJS8uX31zKmMqu1jfpWaFOIPRShenUdzuFPh9ojKj670

--
-- PostgreSQL database cluster dump complete
--

