#!/usr/bin/env bash
# Take down what terraform/deploy.sh made, so that nothing is left that costs.
#
#   terraform/destroy.sh PROJECT
#
# The registry, the keys and the base models go too. Customers' buckets, and the models in them, are theirs and
# stay. A locked audit log stays until its days are over (docs/how-to/teardown.md).
set -euo pipefail

project=${1:?"usage: terraform/destroy.sh PROJECT"}
root=$(cd "$(dirname "$0")/.." && pwd)
settings=$(pwd)/$project.tfvars
platform=$root/terraform/platform
build=$platform/build

if [ -z "${YES:-}" ]; then
  read -r -p "Destroy sublet in $project, with its registry and its keys? Type the project's name: " answer
  [ "$answer" = "$project" ] || exit 1
fi

tf() { terraform -chdir="$platform" "$@"; }

given=("-var=project=$project" "-var-file=$settings" "-var-file=$build/images.tfvars.json" "-var=protects_data=false")

custom_jobs() { # what trains on Vertex AI is in no state of Terraform's, and costs until it ends
  local region
  region=$(sed -n 's/^ *region *= *"\(.*\)".*/\1/p' "$settings")
  gcloud ai custom-jobs "$@" --project "$project" --region "${region:-europe-west4}"
}

if grep -Eq '^ *vertex_accelerators *=' "$settings"; then
  custom_jobs list --format 'value(name)' \
    --filter 'labels.sublet_lease:* AND state=(JOB_STATE_QUEUED JOB_STATE_PENDING JOB_STATE_RUNNING)' |
    while read -r job; do custom_jobs cancel "$job" </dev/null; done
fi

tf apply -input=false -auto-approve "${given[@]}"
if ! grep -Eq '^ *locks_audit_log *= *false' "$settings"; then
  # Nobody can delete a locked log bucket, Terraform included: it is left, and costs its storage.
  tf state rm google_logging_project_bucket_config.audit
fi
tf destroy -input=false -auto-approve "${given[@]}"
# Cloud Functions makes a bucket of its own for what it builds.
gcloud storage ls --project "$project" | grep '/gcf-v2-' | while read -r bucket; do
  gcloud storage rm --recursive "$bucket"
done || true
gcloud storage rm --recursive "gs://$project-sublet-state"
rm -rf "$build" "$platform/backend_override.tf"
echo "left in $project: the log bucket sublet-audit if it is locked, and keys until their 30 days are over"
