-- Roles belong to the cluster, so another test may have made them, perhaps at this moment.
DO $$
DECLARE role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['golden_owner', 'golden_reader'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I', role);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
  END LOOP;
END $$;
