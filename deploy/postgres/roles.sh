#!/bin/sh
# The owner migrates; the site runs as a role that owns nothing, so that row-level security binds it. Not run here.
set -eu
owner=$(cat /run/secrets/owner_password) app=$(cat /run/secrets/app_password)
psql -v ON_ERROR_STOP=1 -U postgres -v owner="$owner" -v app="$app" <<'SQL'
CREATE ROLE rmn_owner LOGIN PASSWORD :'owner';
CREATE ROLE rmn_app LOGIN PASSWORD :'app';
CREATE DATABASE rmn OWNER rmn_owner;
\c rmn
ALTER DEFAULT PRIVILEGES FOR ROLE rmn_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO rmn_app;
ALTER DEFAULT PRIVILEGES FOR ROLE rmn_owner GRANT USAGE ON SEQUENCES TO rmn_app;
GRANT USAGE ON SCHEMA public TO rmn_app;
SQL
