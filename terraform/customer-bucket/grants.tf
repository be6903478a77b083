# What a customer grants: exactly what `sublet get account` lists, member by member.

locals {
  output_prefix = "projects/_/buckets/${var.bucket}/objects/${var.output_prefix}"
}

resource "google_project_iam_custom_role" "verifier" {
  project     = var.project
  role_id     = "subletVerifier"
  title       = "sublet verifier"
  description = "Sees whose a bucket is and what it grants; never an object."
  permissions = ["storage.buckets.get", "storage.buckets.getIamPolicy"]
}

resource "google_storage_bucket_iam_member" "verifier" {
  bucket = var.bucket
  role   = google_project_iam_custom_role.verifier.id
  member = "serviceAccount:${var.verifier}"
}

resource "google_storage_bucket_iam_member" "account" {
  bucket = var.bucket
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${var.account_email}"
}

resource "google_storage_bucket_iam_member" "reader" {
  for_each = var.data_accounts

  bucket = var.bucket
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${each.value}"
}

resource "google_storage_bucket_iam_member" "writer" {
  for_each = var.data_accounts

  bucket = var.bucket
  role   = "roles/storage.objectCreator"
  member = "serviceAccount:${each.value}"

  condition {
    title      = "models only"
    expression = "resource.name.startsWith(\"${local.output_prefix}\")"
  }
}
