#!/usr/bin/env bash
# The team stack's first service: everything the others expect to find. Safe to run again; it runs at every start.
set -euo pipefail

airflow db migrate
airflow pools import /opt/akosha/deploy/pools.json
# An administrator who exists already is left alone: `airflow users reset-password` changes the password.
airflow users create --username "$ADMIN_USER" --password "$ADMIN_PASSWORD" --role Admin \
    --email "$ADMIN_USER@localhost" --firstname Akosha --lastname Administrator
python /opt/akosha/deploy/buckets.py
akosha init
