# Who read, who minted, who granted: Google's own record of it, kept where nobody can shorten it.

resource "google_project_iam_audit_config" "service" {
  for_each = toset([
    "aiplatform.googleapis.com",
    "cloudkms.googleapis.com",
    "datastore.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",
  ])

  project = var.project
  service = each.value

  audit_log_config {
    log_type = "ADMIN_READ"
  }

  audit_log_config {
    log_type = "DATA_READ"
  }

  audit_log_config {
    log_type = "DATA_WRITE"
  }
}

resource "google_logging_project_bucket_config" "audit" {
  project         = var.project
  location        = var.region
  bucket_id       = "sublet-audit"
  description     = "Audit log of sublet."
  retention_days  = var.audit_log_days
  locked          = var.locks_audit_log
  deletion_policy = var.protects_data ? "PREVENT" : "DELETE"

  cmek_settings {
    kms_key_name = local.key
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

# A sink of a project to a bucket of the same project writes as Logging itself and needs no grant.
resource "google_logging_project_sink" "audit" {
  project     = var.project
  name        = "sublet-audit"
  description = "Copies what audit logs say into the locked bucket."
  destination = "logging.googleapis.com/projects/${var.project}/locations/${var.region}/buckets/${google_logging_project_bucket_config.audit.bucket_id}"
  filter      = "logName:\"cloudaudit.googleapis.com\""
}
