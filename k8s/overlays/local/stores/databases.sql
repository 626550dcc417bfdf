-- A role and a database per service, which nobody else can open.
\set ON_ERROR_STOP on
SELECT format(statement, service)
FROM unnest(ARRAY['user', 'payment', 'compliance', 'document', 'notification']) AS service,
     unnest(ARRAY[
       'CREATE ROLE %1$I LOGIN',
       'GRANT %1$I TO CURRENT_USER', -- who may be no superuser, and could not give it a database otherwise
       'CREATE DATABASE %1$I OWNER %1$I TEMPLATE template0 ENCODING ''UTF8'' LOCALE ''C'' '
         'LOCALE_PROVIDER builtin BUILTIN_LOCALE ''C.UTF-8''',
       'REVOKE CONNECT, TEMPORARY ON DATABASE %1$I FROM PUBLIC'
     ]) WITH ORDINALITY AS each (statement, step)
ORDER BY service, step
\gexec
