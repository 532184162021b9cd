"""Backups by Apache Airflow 3. Made by `backup-cli generate airflow`; put it into the DAGs folder.

Each source is a mapped task of its own, so that executors spread them over all workers: a backup, then
the proof that what was stored is what was sent. At the end, `check` says whether all of them are fresh and
healthy. backup-cli and the configuration file are on every worker, at the paths below.

Secrets are in Connections (table CONNECTIONS). They reach backup-cli in its environment and nothing else:
no command line, no XCom and no log has them.

A task fails when anything did, also when only a warning was left (exit code 3). Retries are Airflow's,
as RETRIES says: they do no harm, because a backup that failed has published nothing, and a source that
another run has is left to it (exit code 5).
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Connection, Variable, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.trigger import CronTriggerTimetable

PROGRAM = @PROGRAM@
CONFIG = @CONFIG@

# DAG, cron expression or None, time zone, sources.
ROUNDS = [
@ROUNDS@]

# DAG, cron expression, time zone, arguments.
UPKEEP = [
@UPKEEP@]

# A variable of backup-cli: the Connection that has its value, and in which field.
CONNECTIONS = {
@CONNECTIONS@}

# A variable of backup-cli and of Airflow: what it is where Airflow has none.
VARIABLES = {
@VARIABLES@}

# What the program sees of the worker's own environment: nothing of Airflow's.
OWN = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME")

# Wrong configuration, a key that does not fit, a safety rule: another try changes nothing.
FINAL = (2, 10, 12)

# Beside those of the configuration, which are within one try. Said here, because mapped tasks do not get what
# Airflow's own configuration says.
RETRIES = {"retries": 2, "retry_delay": timedelta(minutes=5)}

# How long a run that was stopped may take to take back what it began.
GRACE_SECONDS = 60


def environment() -> dict[str, str]:
    """The environment of backup-cli. Nobody may log it."""
    values = {name: os.environ[name] for name in OWN if name in os.environ}
    found = {}
    for name, (connection, field) in CONNECTIONS.items():
        if connection not in found:
            found[connection] = Connection.get(connection)
        value = getattr(found[connection], field)
        if value not in (None, ""):
            values[name] = str(value)
        elif field == "password":
            raise AirflowFailException(f"Connection {connection} has no {field}")
    for name, default in VARIABLES.items():
        value = Variable.get(name, default=default)
        if value not in (None, ""):
            values[name] = str(value)
    return values


def run(arguments: list[str], fine: tuple[int, ...] = (0,)) -> str:
    """What backup-cli prints as JSON. Its log lines are those of the task."""
    config = [] if CONFIG is None else ["--config", CONFIG]
    child = subprocess.Popen(
        [PROGRAM, *config, "--json", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        printed, _ = child.communicate()
    except BaseException:
        # The task was stopped. Nothing is published, and what was stored so far is removed.
        child.terminate()
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
        raise
    print(printed, end="")
    if child.returncode in fine:
        return printed
    message = f"backup-cli {arguments[0]} ended with code {child.returncode}"
    if child.returncode in FINAL:
        raise AirflowFailException(message)
    raise AirflowException(message)


@task(map_index_template="{{ source }}")
def backup(source: str | None) -> list[dict[str, str]]:
    """Takes a backup, or one of each database that the source stands for."""
    get_current_context()["source"] = source or "database"
    if source is not None:
        printed = run(["backup", "--", source])
    else:
        recipient = Variable.get("BACKUP_RECIPIENT", default=None)
        printed = run(["backup", *(["--recipient", recipient] if recipient else [])])
    taken = [json.loads(line) for line in printed.splitlines()]
    return [{"id": one["id"], "source": one["source"]} for one in taken if one["id"]]


@task(map_index_template="{{ source }}")
def verify(taken: list[dict[str, str]]) -> None:
    """Reads back what was stored."""
    get_current_context()["source"] = ", ".join(one["source"] for one in taken) or "nothing"
    if not taken:
        raise AirflowFailException("there is no backup to verify")
    for one in taken:
        run(["verify", "--source", one["source"], "--", one["id"]])


@task
def check(sources: list[str | None]) -> None:
    """Whether backups are fresh and healthy. A warning is in the log; what is critical or not known fails."""
    names = [name for name in sources if name is not None]
    run(["check", "--", *names] if names else ["check"], fine=(0, 1))


@task
def upkeep(arguments: list[str]) -> None:
    """What is run for all sources."""
    run(arguments)


def schedule(cron: str | None, zone: str) -> CronTriggerTimetable | None:
    """The timetable of a cron expression: a run begins when its time comes, and none is made up for."""
    return None if cron is None else CronTriggerTimetable(cron, timezone=zone)


def common(dag_id: str, cron: str | None, zone: str) -> dict:
    """What all DAGs have alike."""
    return {
        "dag_id": dag_id,
        "schedule": schedule(cron, zone),
        "start_date": pendulum.datetime(2024, 1, 1, tz=zone),
        "catchup": False,
        "max_active_runs": 1,
        "default_args": RETRIES,
        "tags": ["backup"],
    }


for _id, _cron, _zone, _sources in ROUNDS:
    with DAG(**common(_id, _cron, _zone)) as _dag:

        @task_group
        def one(source):
            """A backup and its proof."""
            verify(backup(source))

        # A failed backup fails what comes after it, and so the run.
        one.expand(source=_sources) >> check(_sources)
    globals()[_id] = _dag

for _id, _cron, _zone, _arguments in UPKEEP:
    with DAG(**common(_id, _cron, _zone)) as _dag:
        upkeep(_arguments)
    globals()[_id] = _dag
