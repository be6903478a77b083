# A VPC Service Controls perimeter in dry run: it logs what it would refuse, and refuses nothing. Read its log
# for a week, add what customers' projects need as egress, then move `spec` to `status` yourself.

resource "google_access_context_manager_service_perimeter" "dry_run" {
  count = var.access_policy == null ? 0 : 1

  parent                    = "accessPolicies/${var.access_policy}"
  name                      = "accessPolicies/${var.access_policy}/servicePerimeters/sublet"
  title                     = "sublet"
  use_explicit_dry_run_spec = true

  spec {
    resources = ["projects/${local.project_number}"]
    restricted_services = [
      "aiplatform.googleapis.com",
      "artifactregistry.googleapis.com",
      "cloudfunctions.googleapis.com",
      "cloudkms.googleapis.com",
      "firestore.googleapis.com",
      "iamcredentials.googleapis.com",
      "logging.googleapis.com",
      "pubsub.googleapis.com",
      "run.googleapis.com",
      "secretmanager.googleapis.com",
      "storage.googleapis.com",
      "sts.googleapis.com",
    ]
  }
}
