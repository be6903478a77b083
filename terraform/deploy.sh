#!/usr/bin/env bash
# Plan, build, apply, and prove it with a file: the whole of sublet in one Google Cloud project.
#
#   terraform/deploy.sh PROJECT
#
# reads PROJECT.tfvars (terraform/platform/variables.tf says what may be in it); may be run again at any time.
#   YES=1               apply without asking
#   TORCH_INDEX_URL=... where torch for the accelerator's CUDA comes from (trainer/Dockerfile)
#   BASE_MODELS=DIR     a folder of base models to put into their bucket, each a folder of its own
set -euo pipefail

project=${1:?"usage: terraform/deploy.sh PROJECT"}
root=$(cd "$(dirname "$0")/.." && pwd)
settings=$(pwd)/$project.tfvars
platform=$root/terraform/platform
build=$platform/build
python=${PYTHON:-$root/.venv/bin/python}

[ -f "$settings" ] || {
  echo "there is no $settings; it needs at least: alerts_to = \"you@example.com\"" >&2
  exit 2
}

setting() { # of the settings file, or the default that variables.tf gives it
  local given
  given=$(sed -n "s/^ *$1 *= *\"\(.*\)\".*/\1/p" "$settings")
  echo "${given:-$2}"
}

region=$(setting region europe-west4)
registry=$region-docker.pkg.dev/$project/sublet
if [ "$(setting accelerator nvidia-l4)" = nvidia-l4 ] && [ -z "${TORCH_INDEX_URL:-}" ]; then
  echo "an L4 of Cloud Run has a driver for CUDA 12, and torch's default wheels want CUDA 13:" >&2
  echo "set TORCH_INDEX_URL to PyTorch's index of CUDA 12 wheels, or accelerator = \"nvidia-rtx-pro-6000\"" >&2
  exit 2
fi

say() { printf '\n== %s\n' "$*"; }
tf() { terraform -chdir="$platform" "$@"; }

foundations() { # what has to be there before Terraform can plan the rest
  gcloud services enable --project "$project" \
    aiplatform.googleapis.com artifactregistry.googleapis.com cloudbuild.googleapis.com cloudfunctions.googleapis.com \
    cloudkms.googleapis.com cloudresourcemanager.googleapis.com eventarc.googleapis.com \
    firestore.googleapis.com iam.googleapis.com logging.googleapis.com pubsub.googleapis.com \
    run.googleapis.com secretmanager.googleapis.com serviceusage.googleapis.com storage.googleapis.com
  for service in aiplatform artifactregistry cloudfunctions eventarc firestore pubsub run secretmanager; do
    gcloud beta services identity create --project "$project" --service "$service.googleapis.com"
  done
  gcloud storage service-agent --project "$project"
  gcloud storage buckets describe "gs://$project-sublet-state" --project "$project" >/dev/null 2>&1 ||
    gcloud storage buckets create "gs://$project-sublet-state" --project "$project" \
      --location "$region" --uniform-bucket-level-access --public-access-prevention
  gcloud storage buckets update "gs://$project-sublet-state" --versioning
  printf 'terraform {\n  backend "gcs" {\n    bucket = "%s-sublet-state"\n  }\n}\n' "$project" \
    >"$platform/backend_override.tf"
  tf init -input=false -reconfigure
}

variables() { # in the order of precedence: what was built, then the settings
  printf '%s\n' "-var=project=$project" "-var-file=$settings" "-var-file=$build/images.tfvars.json" \
    "-var=canary_until=$(date -u -d '+1 day' +%Y-%m-%dT00:00:00Z)"
}

place_for_images() { # the repository, the builder and the secret come before what needs their content
  local none
  none=none@sha256:$(printf '0%.0s' {1..64})
  [ -f "$build/images.tfvars.json" ] ||
    printf '{"images": {"control-plane": "%s", "lease-broker": "%s", "sublet-trainer": "%s"}}\n' \
      "$none" "$none" "$none" >"$build/images.tfvars.json"
  mapfile -t given < <(variables)
  tf apply -input=false -auto-approve "${given[@]}" \
    -target=google_artifact_registry_repository_iam_member.builder \
    -target=google_project_iam_member.builder_logs \
    -target=google_storage_bucket_iam_member.builder \
    -target=google_secret_manager_secret.unit
}

seal_key() { # made once, by whoever deploys, and in no file
  local versions
  versions=$(gcloud secrets versions list sublet-seal-key --project "$project" --filter state=ENABLED --format 'value(name)')
  [ -n "$versions" ] ||
    openssl rand -base64 32 | tr -d '\n' |
    gcloud secrets versions add sublet-seal-key --project "$project" --data-file -
}

image() { # NAME DOCKERFILE [BUILD-ARG...]: built where it will run, and known by its digest
  local name=$1 dockerfile=$2 arguments='' argument
  shift 2
  for argument in "$@"; do arguments="$arguments, \"--build-arg\", \"$argument\""; done
  cat >"$build/$name.cloudbuild.json" <<JSON
{
  "steps": [{
    "name": "gcr.io/cloud-builders/docker",
    "args": ["build", "--file", "$dockerfile"$arguments, "--tag", "$registry/$name:$version", "."]
  }],
  "images": ["$registry/$name:$version"],
  "options": {"logging": "CLOUD_LOGGING_ONLY"},
  "timeout": "3600s"
}
JSON
  gcloud builds submit "$root" --project "$project" --region "$region" \
    --config "$build/$name.cloudbuild.json" \
    --service-account "projects/$project/serviceAccounts/sublet-builder@$project.iam.gserviceaccount.com" \
    --gcs-source-staging-dir "gs://$project-sublet-sources/code/images"
}

digest() {
  gcloud artifacts docker images describe "$registry/$1:$version" --project "$project" \
    --format 'value(image_summary.fully_qualified_digest)'
}

images() {
  version=$(git -C "$root" rev-parse --short=12 HEAD)-$(date -u +%Y%m%d%H%M%S)
  image control-plane services/Dockerfile UNIT=control-plane
  image lease-broker services/Dockerfile UNIT=lease-broker
  image sublet-trainer trainer/Dockerfile ${TORCH_INDEX_URL:+"TORCH_INDEX_URL=$TORCH_INDEX_URL"}
  printf '{"images": {"control-plane": "%s", "lease-broker": "%s", "sublet-trainer": "%s"}}\n' \
    "$(digest control-plane)" "$(digest lease-broker)" "$(digest sublet-trainer)" \
    >"$build/images.tfvars.json"
}

whole() {
  mapfile -t given < <(variables)
  tf plan -input=false "${given[@]}" -out="$build/plan"
  if [ -z "${YES:-}" ]; then
    read -r -p "Apply this plan to $project? [yes] " answer
    [ "$answer" = yes ] || exit 1
  fi
  tf apply -input=false "$build/plan"
  tf output -json >"$build/outputs.json"
}

base_models() {
  [ -z "${BASE_MODELS:-}" ] ||
    gcloud storage rsync --recursive "$BASE_MODELS" "gs://$project-sublet-base-models"
  gcloud storage ls "gs://$project-sublet-base-models" >"$build/base-models"
}

mkdir -p "$build"
say "Foundations"
foundations
say "Bundles"
"$python" "$root/functions/bundle.py" "$build"
say "A place for images"
place_for_images
seal_key
say "Images"
images
say "The plan, and the whole"
whole
base_models
say "Accounts"
"$python" "$root/terraform/open_accounts.py" --outputs "$build/outputs.json" --base-models "$build/base-models" \
  --keys "$build/keys" --new-key canary
say "A canary file"
"$python" "$root/terraform/smoke_test.py" --outputs "$build/outputs.json" --key "$build/keys/canary" \
  --base-models "$build/base-models"
