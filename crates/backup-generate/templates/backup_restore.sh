#!/bin/sh
# A step of a TeamCity build: runner "Command Line", this file and its arguments.
#
#   backup_restore.sh backup [SOURCE...]              all sources, or these
#   backup_restore.sh restore BACKUP DATABASE [SOURCE]  into a new database; BACKUP may be `latest`
#   backup_restore.sh list [SOURCE]
#   backup_restore.sh verify                          two backups picked at random, the newest among them
#   backup_restore.sh check [SOURCE...]               are backups fresh and healthy?
#
# Passwords and keys are parameters of the build of type "Password", named env.NAME, for each
# `{ env = "NAME" }` of the configuration; TeamCity hides them in logs. None is in here.
#
# The step fails when anything did: each problem is a build problem, and the exit code says the same.
# What a backup took and holds is in the statistics of the build.
#
# Made by `backup-cli generate teamcity`.
set -eu

cli() { exec @COMMAND@ --log-format teamcity "$@"; }

usage() {
  echo "usage: $0 backup [SOURCE...] | restore BACKUP DATABASE [SOURCE] | list [SOURCE] | verify | check [SOURCE...]" >&2
  exit 2
}

[ $# -ge 1 ] || usage
task=$1
shift
case $task in
backup)
  [ $# -eq 0 ] || cli backup -- "$@"
  @BACKUP@
  ;;
restore)
  [ $# -eq 2 ] || [ $# -eq 3 ] || usage
  cli restore ${3:+--source "$3"} --target-db "$2" -- "$1"
  ;;
list) cli list -- "$@" ;;
verify) cli verify --sample 2 ;;
check) cli check -- "$@" ;;
*) usage ;;
esac
