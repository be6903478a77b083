# What a customer grants: what `sublet get account` lists, member by member, on what lies under the prefixes and
# until the date. Members are added; nothing that the bucket grants to others is touched.

locals {
  objects = "projects/_/buckets/${var.bucket}/objects"
  data    = "resource.name.startsWith(\"${local.objects}/${var.prefix}\")"
  models  = "resource.name.startsWith(\"${local.objects}/${var.output_prefix}\")"
  # Names below the prefix may be listed: an object that no event told of is found that way.
  names   = "api.getAttribute(\"storage.googleapis.com/objectListPrefix\", \"\").startsWith(\"${var.prefix}\")"
  in_time = "request.time < timestamp(\"${var.access_until}\")"
}

resource "google_project_iam_custom_role" "verifier" {
  project     = var.project
  role_id     = "subletVerifier"
  title       = "sublet verifier"
  description = "Sees whose a bucket is and what it grants; never an object."
  permissions = [
    "storage.buckets.get",
    "storage.buckets.getIamPolicy",
    # A managed folder's policy adds to the bucket's: without these two, the report says that nobody looked.
    "storage.managedFolders.getIamPolicy",
    "storage.managedFolders.list",
  ]
}

resource "google_storage_bucket_iam_member" "verifier" {
  bucket = var.bucket
  role   = "projects/${var.project}/roles/${google_project_iam_custom_role.verifier.role_id}"
  member = "serviceAccount:${var.verifier}"

  condition {
    title      = "until ${var.access_until}"
    expression = local.in_time
  }
}

# Nobody reads with it: that it is granted says whose tenant's this bucket is.
resource "google_storage_bucket_iam_member" "account" {
  bucket = var.bucket
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${var.account_email}"

  condition {
    title      = "${var.prefix} until ${var.access_until}"
    expression = "${local.data} && ${local.in_time}"
  }
}

resource "google_storage_bucket_iam_member" "reader" {
  for_each = var.data_accounts

  bucket = var.bucket
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${each.value}"

  condition {
    title      = "${var.prefix} and ${var.output_prefix} until ${var.access_until}"
    expression = "(${local.data} || ${local.models} || ${local.names}) && ${local.in_time}"
  }
}

resource "google_storage_bucket_iam_member" "writer" {
  for_each = var.data_accounts

  bucket = var.bucket
  role   = "roles/storage.objectCreator"
  member = "serviceAccount:${each.value}"

  condition {
    title      = "${var.output_prefix} until ${var.access_until}"
    expression = "${local.models} && ${local.in_time}"
  }
}
