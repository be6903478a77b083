# The registry. Its composite indexes are those of firestore_indexes.json, which a test compares with the
# queries in the code.

locals {
  database = "projects/${var.project}/databases/${google_firestore_database.registry.name}"
  indexes = {
    for index in jsondecode(file("${path.module}/firestore_indexes.json")) :
    "${index.collection}: ${join(", ", [for field in index.fields : "${field.path} ${field.order}"])}" => index
  }
}

resource "google_firestore_database" "registry" {
  project                           = var.project
  name                              = "sublet"
  location_id                       = var.region
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = var.protects_data ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.protects_data ? "PREVENT" : "DELETE"

  dynamic "cmek_config" {
    for_each = var.firestore_has_own_key ? [local.key] : []

    content {
      kms_key_name = cmek_config.value
    }
  }

  depends_on = [google_project_service.api, google_kms_crypto_key_iam_member.agent]
}

resource "google_firestore_index" "query" {
  for_each = local.indexes

  project    = var.project
  database   = google_firestore_database.registry.name
  collection = each.value.collection

  dynamic "fields" {
    for_each = each.value.fields

    content {
      field_path = fields.value.path
      order      = fields.value.order
    }
  }
}

# What is never queried is not indexed; and a commit's marker is of no use after a day.
resource "google_firestore_field" "unindexed" {
  for_each = {
    "records/record"     = {}
    "records/commit"     = {}
    "outbox/data"        = {}
    "commits/expires_at" = { is_time_to_live = true }
  }

  project    = var.project
  database   = google_firestore_database.registry.name
  collection = split("/", each.key)[0]
  field      = split("/", each.key)[1]

  index_config {}

  dynamic "ttl_config" {
    for_each = lookup(each.value, "is_time_to_live", false) ? [1] : []

    content {}
  }
}

resource "google_firestore_backup_schedule" "daily" {
  project   = var.project
  database  = google_firestore_database.registry.name
  retention = "1209600s"

  daily_recurrence {}
}

resource "google_project_iam_member" "registrar" {
  for_each = local.units

  project = var.project
  role    = "roles/datastore.user"
  member  = local.members[each.key]

  condition {
    title      = "the registry only"
    expression = "resource.name == \"${local.database}\""
  }
}
