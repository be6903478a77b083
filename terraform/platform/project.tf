# The project that everything is in: what it must offer, and the agents that Google runs in it.

data "google_project" "this" {
  project_id = var.project
}

data "google_logging_project_cmek_settings" "this" {
  project = var.project
}

locals {
  project_number = data.google_project.this.number

  agents = merge(local.num_vertex == 0 ? {} : { vertex-ai = local.vertex_at }, {
    artifact-registry = "service-${local.project_number}@gcp-sa-artifactregistry.iam.gserviceaccount.com"
    eventarc          = "service-${local.project_number}@gcp-sa-eventarc.iam.gserviceaccount.com"
    firestore         = "service-${local.project_number}@gcp-sa-firestore.iam.gserviceaccount.com"
    functions         = "service-${local.project_number}@gcf-admin-robot.iam.gserviceaccount.com"
    logging           = data.google_logging_project_cmek_settings.this.service_account_id
    pubsub            = "service-${local.project_number}@gcp-sa-pubsub.iam.gserviceaccount.com"
    run               = "service-${local.project_number}@serverless-robot-prod.iam.gserviceaccount.com"
    secret-manager    = "service-${local.project_number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
    storage           = "service-${local.project_number}@gs-project-accounts.iam.gserviceaccount.com"
  })
}

resource "google_project_service" "api" {
  for_each = toset(concat(local.num_vertex == 0 ? [] : ["aiplatform.googleapis.com"], [
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudkms.googleapis.com",
    "cloudscheduler.googleapis.com",
    "compute.googleapis.com",
    "dns.googleapis.com",
    "eventarc.googleapis.com",
    "firestore.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",
  ]))

  project            = var.project
  service            = each.value
  disable_on_destroy = false
}
